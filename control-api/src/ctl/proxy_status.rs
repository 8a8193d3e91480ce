//! `outriggerctl proxy-status`: who is connected, and has accepted what.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::table::Table;
use super::{Control, Output, fetch};

/// Show the proxies that are connected, and whether they have accepted what they were sent
#[derive(Debug, Args)]
#[command(visible_alias = "ps", after_long_help = HELP)]
pub(super) struct Arguments {
    /// Only this one: its node id, or NAME.NAMESPACE
    proxy: Option<String>,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Short)]
    output: Output,

    #[command(flatten)]
    control: Control,
}

const HELP: &str = "\
SYNCED    it has accepted what it was sent last
STALE     it has not answered yet
ERROR     it refuses what it was sent last; below the table stands why
NOT SENT  there was nothing to send
IGNORED   it has not asked for that kind

Exit code: 0 if nobody refuses anything, 1 otherwise.";

/// The kinds that have a column.
const KINDS: [&str; 5] = ["CDS", "LDS", "EDS", "RDS", "ECDS"];

/// What is printed, and whether nobody refuses anything.
pub(super) async fn run(arguments: &Arguments) -> Result<(String, bool)> {
    let control = arguments.control.address();
    let proxies = match &arguments.proxy {
        None => fetch::json(control, "/api/v1/proxies").await?,
        Some(name) => {
            Value::from(vec![fetch::json(control, &format!("/api/v1/proxies/{name}")).await?])
        }
    };
    let list = proxies.as_array().map(Vec::as_slice).unwrap_or_default();
    let good = list.iter().all(|it| refusals(it).is_empty());
    let text = match arguments.output.document(&proxies) {
        Some(document) => document,
        None if list.is_empty() => "no proxy is connected\n".to_owned(),
        None => table(list, now(), control),
    };
    Ok((text, good))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64())
}

fn table(proxies: &[Value], now: f64, control: &str) -> String {
    let head = ["NAME", "CLUSTER"].into_iter().chain(KINDS).chain(["ISTIOD", "VERSION"]);
    let mut table = Table::new(&head.collect::<Vec<_>>());
    let mut sorted: Vec<&Value> = proxies.iter().collect();
    sorted.sort_by_key(|it| it["name"].as_str());
    for proxy in &sorted {
        let text = |key: &str| proxy[key].as_str().unwrap_or_default().to_owned();
        let cells = KINDS.iter().map(|kind| cell(&proxy["xds"][kind], now));
        let line = [text("name"), text("clusterId")].into_iter().chain(cells);
        table.line(line.chain([control.to_owned(), text("version")]));
    }
    let mut text = table.text();
    for proxy in sorted {
        for (kind, error) in refusals(proxy) {
            let name = proxy["name"].as_str().unwrap_or_default();
            let _ = writeln!(text, "{name} refuses {kind}: {error}");
        }
    }
    text
}

fn cell(kind: &Value, now: f64) -> String {
    let Some(status) = kind["status"].as_str() else { return "IGNORED".to_owned() };
    match kind["since"].as_f64() {
        Some(since) => format!("{status} ({})", age(now - since)),
        None => status.to_owned(),
    }
}

/// As Kubernetes' tools write ages.
fn age(seconds: f64) -> String {
    let number = |unit: f64| (seconds.max(0.0) / unit).floor();
    match seconds {
        ..120.0 => format!("{}s", number(1.0)),
        ..7_200.0 => format!("{}m", number(60.0)),
        ..172_800.0 => format!("{}h", number(3_600.0)),
        _ => format!("{}d", number(86_400.0)),
    }
}

fn refusals(proxy: &Value) -> Vec<(&str, &str)> {
    let kinds = proxy["xds"].as_object().into_iter().flatten();
    kinds.filter_map(|(kind, state)| Some((kind.as_str(), state["error"].as_str()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_per_proxy_and_why_it_refuses() {
        let proxies = [json!({
            "name": "web.shop", "clusterId": "Kubernetes", "version": "1.30.3",
            "xds": {
                "CDS": {"status": "SYNCED", "since": 40.0, "error": null},
                "LDS": {"status": "ERROR", "since": 95.0, "error": "listener a: no such filter"},
                "EDS": {"status": "NOT SENT", "since": null, "error": null},
            },
        })];
        let text = table(&proxies, 100.0, "istiod");
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .map(ToOwned::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(lines[0])[..4], ["NAME", "CLUSTER", "CDS", "LDS"]);
        let expected = [
            "web.shop",
            "Kubernetes",
            "SYNCED (60s)",
            "ERROR (5s)",
            "NOT SENT",
            "IGNORED",
            "IGNORED",
            "istiod",
            "1.30.3",
        ];
        assert_eq!(words(lines[1]), expected);
        assert_eq!(lines[2], "web.shop refuses LDS: listener a: no such filter");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(
            [3.9, 119.0, 180.0, 7_300.0, 200_000.0].map(age),
            ["3s", "119s", "3m", "2h", "2d"]
        );
    }
}
