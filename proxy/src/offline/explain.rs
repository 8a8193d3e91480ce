//! `outrigger explain`: which listener, chain, virtual host, route, cluster and endpoints a request would
//! take, and why the others would not.

mod asked;
mod chain;
mod cluster;
mod head;
mod listener;
mod report;
mod route;
mod words;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use self::asked::Asked;
use self::cluster::{Bound, Fate};
use self::report::Report;
use super::route_check::Output;
use crate::discovery::{Assembler, Sources};
use crate::telemetry::metrics::Metrics;

/// What the command line says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  outrigger explain --config envoy.yaml GET https://shop.example/cart\n  \
    outrigger explain --config envoy.yaml GET http://shop.example:8080/ -H 'x-user-type: premium'\n  \
    outrigger explain --config envoy.yaml GET https://10.0.0.1/ -H 'host: shop.example' --output json\n\n\
    Nothing is sent and no name is resolved. Files that the configuration names are read.\n\n\
    Exit codes: 0 the request would be forwarded or answered as configured; 1 it would be refused, or the \
    configuration is; 2 wrong arguments."
)]
pub struct Arguments {
    /// Bootstrap file, as for serving
    #[arg(short = 'c', long, visible_alias = "config-path", value_name = "FILE")]
    config: PathBuf,

    /// Method of the request
    method: String,

    /// URL of the request; its port chooses the listener, its host the server name and the Host header
    url: String,

    /// A header of the request, `name: value`; a Host header replaces the URL's host
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,

    /// Address of the client
    #[arg(long, value_name = "IP[:PORT]", default_value = "")]
    from: String,

    /// Ask only this listener, whatever its port
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,

    /// The request's random number, which weights and fractions draw from
    #[arg(long, value_name = "N", default_value_t = 0)]
    random: u64,

    /// How the explanation is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Writes the explanation to `out`; whether the request comes to a good end.
///
/// # Errors
/// If the request is none, the configuration is refused, or `out` cannot be written.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<bool> {
    let asked = Asked::new(&arguments.method, &arguments.url, &arguments.headers, &arguments.from)?;
    let sources = Sources { config_path: Some(arguments.config.clone()), config_yaml: None };
    let assembler = Assembler::load(sources, Arc::new(Metrics::default())).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow!("the configuration was refused:\n{}", lines.join("\n"))
    })?;
    let report = explain(&assembler, &asked, arguments);
    let text = match arguments.output {
        Output::Json => format!("{:#}\n", report.to_json()),
        Output::Text => report.to_text(std::io::stdout().is_terminal()),
    };
    out.write_all(text.as_bytes()).context("cannot write the explanation")?;
    Ok(report.is_served)
}

fn explain(assembler: &Assembler, asked: &Asked, arguments: &Arguments) -> Report {
    let scheme = if asked.is_tls { "https" } else { "http" };
    let request = format!(
        "{} {scheme}://{}{} from {}",
        asked.method, asked.authority, asked.target, asked.source
    );
    let (steps, end) = listener::explain(assembler, asked, arguments);
    let mut report = Report { request, steps, ..Report::default() };
    let bound = match end {
        listener::End::Refused(why) => {
            report.result = why;
            return report;
        }
        listener::End::Answered(answer) => {
            report.result = answer;
            report.is_served = true;
            return report;
        }
        listener::End::Cluster(bound) => bound,
    };
    let (steps, fate) = cluster::explain(assembler, &bound, arguments.random);
    let Bound { cluster, request, missing, .. } = bound;
    report.steps.extend(steps);
    report.is_served = matches!(fate, Fate::Served);
    report.result = match fate {
        Fate::Served => format!("{request} goes to cluster {cluster}"),
        Fate::Missing => format!("{missing}: there is no cluster {cluster:?}"),
        Fate::NoEndpoint => {
            format!("503 (no_healthy_upstream): cluster {cluster} has no usable endpoint")
        }
        Fate::Dropped => format!("503 (drop_overload): cluster {cluster} drops it"),
    };
    report
}
