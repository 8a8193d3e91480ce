//! The calls of a mesh over the last seconds, as a table and as JSON.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::figures::{Calls, Figure};
use super::shares::Share;

/// What rates are taken over.
const WINDOW: Duration = Duration::from_secs(10);

/// What was counted lately.
#[derive(Debug, Default)]
pub(super) struct Lately {
    looks: VecDeque<(Instant, BTreeMap<Calls, Figure>)>,
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Row {
    calls: Calls,
    now: Figure,
    /// Requests per second.
    rate: f64,
    /// The part of the answers that is good, from 0 to 1; none without answers.
    success: Option<f64>,
}

impl Lately {
    /// Notes a look, and gives what there is to say since the oldest one that is still of interest.
    pub(super) fn note(&mut self, now: Instant, figures: BTreeMap<Calls, Figure>) -> Vec<Row> {
        while self.looks.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.looks.pop_front();
        }
        let oldest = self.looks.front();
        let rows = figures.iter().map(|(calls, figure)| {
            let (seconds, before) = match oldest {
                Some((at, before)) => ((now - *at).as_secs_f64(), before.get(calls)),
                None => (0.0, None),
            };
            let nothing = Figure::default();
            let before = before.unwrap_or(&nothing);
            let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
            let good = since(figure.good, before.good);
            let answers = good + since(figure.bad, before.bad);
            let requests = since(figure.requests, before.requests);
            Row {
                calls: calls.clone(),
                now: figure.clone(),
                rate: if seconds > 0.0 { requests / seconds } else { 0.0 },
                success: (answers > 0.0).then(|| good / answers),
            }
        });
        let rows = rows.collect();
        self.looks.push_back((now, figures));
        rows
    }
}

impl Row {
    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        let Self { calls, now, rate, success } = self;
        json!({
            "from": calls.from, "to": calls.to, "service": calls.service,
            "subset": calls.subset, "port": calls.port,
            "mtls": now.is_tls(), "handshakes": now.handshakes, "connections": now.connections,
            "requests": now.requests, "rate": rate, "success": success,
            "weights": now.shares.iter().map(Share::json).collect::<Vec<_>>(),
        })
    }
}

/// The table, with colours or without.
pub(super) fn text(rows: &[Row], coloured: bool) -> String {
    if rows.is_empty() {
        return "Nobody has called anybody yet.".to_owned();
    }
    let wide = |of: fn(&Calls) -> &str, title: &str| {
        let longest = rows.iter().map(|row| of(&row.calls).len()).max().unwrap_or_default();
        longest.max(title.len())
    };
    let from = wide(|it| &it.from, "FROM");
    let to = wide(|it| &it.to, "TO");
    let paint = |text: String, code: &str| {
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    };
    let title =
        format!("{:from$}  {:to$}  mTLS  {:>7}  {:>8}  WEIGHT", "FROM", "TO", "REQ/S", "SUCCESS");
    let mut lines = vec![paint(title, "1")];
    for Row { calls, now, rate, success } in rows {
        let (tls, good) = (now.is_tls(), success.is_none_or(|it| it >= 1.0));
        let tls =
            paint(format!("{:4}", if tls { "yes" } else { "no" }), if tls { "32" } else { "31" });
        let success = success.map_or("-".to_owned(), |it| format!("{:.1} %", it * 100.0));
        let success = paint(format!("{success:>8}"), if good { "32" } else { "31" });
        let weights: Vec<_> = now.shares.iter().map(Share::words).collect();
        let weights = if weights.is_empty() { "-".to_owned() } else { weights.join("; ") };
        let line = format!(
            "{:from$}  {:to$}  {tls}  {rate:>7.1}  {success}  {weights}",
            calls.from, calls.to
        );
        // What has no traffic any more steps back.
        lines.push(if *rate > 0.0 {
            line
        } else {
            paint(line.replace("\x1b[0m", "\x1b[0;2m"), "2")
        });
    }
    lines.join("\n")
}
