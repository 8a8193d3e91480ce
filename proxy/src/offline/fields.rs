//! `outrigger fields`: which fields of Envoy's API are accepted without effect, and why.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use prost::Message;
use prost_types::Any;
use serde_json::json;
use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds::support;
use xds::yaml::Document;

use super::route_check::Output;

/// What the command line says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  outrigger fields\n  outrigger fields envoy.yaml\n  \
    outrigger fields --output json recorded/*.pb\n\n\
    A field that is neither followed nor listed here is refused with its path: nothing is dropped silently.")]
pub struct Arguments {
    /// Bootstrap files (YAML or JSON) and recorded discovery responses (.pb); without any, the whole list is shown
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// How the list is written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Where a field is, how often it is set there (0 if nobody looked), and why it has no effect.
type Row = (String, usize, &'static str);

/// Writes the list to `out`.
///
/// # Errors
/// If a file cannot be read, or `out` cannot be written.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<bool> {
    let rows: Vec<Row> = if arguments.files.is_empty() {
        let row = |it: support::Ignored| (format!("{}.{}", it.message, it.field), 0, it.reason);
        support::ignored().map(row).collect()
    } else {
        let mut found: BTreeMap<String, (usize, &'static str)> = BTreeMap::new();
        for file in &arguments.files {
            for message in messages(file)? {
                for (path, (count, reason)) in support::ignored_in(&message) {
                    found.entry(path).or_insert((0, reason)).0 += count;
                }
            }
        }
        found.into_iter().map(|(path, (count, reason))| (path, count, reason)).collect()
    };
    let text = match arguments.output {
        Output::Json => {
            let row = |(field, count, reason): &Row| match count {
                0 => json!({"field": field, "reason": reason}),
                _ => json!({"field": field, "count": count, "reason": reason}),
            };
            format!("{:#}\n", rows.iter().map(row).collect::<serde_json::Value>())
        }
        Output::Text => rows.iter().map(line).collect(),
    };
    out.write_all(text.as_bytes()).context("cannot write the list")?;
    Ok(true)
}

fn line((field, count, reason): &Row) -> String {
    match count {
        0 => format!("{field}: {reason}\n"),
        _ => format!("{field} ({count}x): {reason}\n"),
    }
}

/// What is configured in a file.
fn messages(file: &Path) -> Result<Vec<Any>> {
    let name = file.display();
    if file.extension().is_some_and(|extension| extension == "pb") {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
        return resources(&bytes).with_context(|| format!("{name} is no discovery response"));
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let bootstrap: Bootstrap = Document::of_file(file, text).read().map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{name} is no bootstrap:\n{}", lines.join("\n"))
    })?;
    Ok(vec![Any::from_msg(&bootstrap)?])
}

/// The resources of a response, of which there are two kinds that look alike.
fn resources(bytes: &[u8]) -> Result<Vec<Any>> {
    if let Ok(whole) = DiscoveryResponse::decode(bytes)
        && whole.resources.iter().all(|resource| resource.type_url == whole.type_url)
    {
        return Ok(whole.resources);
    }
    let delta = DeltaDiscoveryResponse::decode(bytes)?;
    Ok(delta.resources.into_iter().filter_map(|resource| resource.resource).collect())
}
