//! `outrigger-control analyze`: what is wrong with a folder of YAML, without a cluster.

pub mod explain;
pub mod json;
pub mod text;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::model::Mesh;
use crate::source::ObjectSet;
use crate::source::directory::Directory;
use crate::source::settings::Settings;
use crate::translate::unapplied;
use crate::validate;
use crate::validate::code::Level;
use crate::validate::finding::{Finding, Findings};

/// Say what is wrong with the YAML of a mesh, or looks like a mistake
///
/// Reads Istio, Gateway API and Kubernetes objects from files, or from folders and everything below them
/// (.yaml, .yml, .json), and tells what would not work: fields that nobody reads, values that cannot be, routes
/// to hosts, subsets and gateways that do not exist, rules that no request reaches, policies for no workload,
/// objects that contradict each other. Each finding has a code, the file and line, and where possible the fix.
/// Nothing is changed, and no cluster is needed.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    /// Files and folders
    #[arg(required_unless_present = "list", value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// How findings are printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Leave out what is less than this
    #[arg(long, value_enum, default_value_t = Level::Info, value_name = "LEVEL", ignore_case = true)]
    output_threshold: Level,

    /// Exit with 1 from this on
    #[arg(long, value_enum, default_value_t = Level::Error, value_name = "LEVEL", ignore_case = true)]
    failure_threshold: Level,

    /// Leave out a code, everywhere or for some objects: IST0102, or 'IST0102=Namespace *-test'
    #[arg(short = 'S', long, value_name = "CODE[=KIND NAME]")]
    suppress: Vec<String>,

    /// The mesh's settings, as in the ConfigMap `istio`
    #[arg(long, visible_alias = "meshConfigFile", value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// The mesh's networks
    #[arg(long, value_name = "FILE")]
    mesh_networks: Option<PathBuf>,

    /// Colours: by default if the output is a terminal
    #[arg(long)]
    color: Option<bool>,

    /// List what is looked for, and stop
    #[arg(short = 'L', long)]
    list: bool,
}

const HELP: &str = "\
Examples:
  outrigger-control analyze mesh/                     everything below mesh/
  outrigger-control analyze mesh/ --output json       for programs; the same fields as istioctl's
  outrigger-control analyze a.yaml b.yaml -n shop     objects without a namespace are in `shop`
  outrigger-control analyze mesh/ --failure-threshold Warning
                                                      for a build that does not tolerate warnings
  outrigger-control analyze mesh/ -S IST0118          without findings about names of ports

An object can ask not to be told of a code: annotation galley.istio.io/analyze-suppress: IST0118 (or *).

Codes beginning with IST are Istio's: https://istio.io/latest/docs/reference/config/analysis/
  OUT0001  a file cannot be read      OUT0002  an object is given twice
  OUT0003  an object has no effect with Outrigger

Exit code: 0 if nothing reaches --failure-threshold, 1 if something does, 2 for wrong arguments.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each finding
    #[value(alias = "log")]
    Text,
    /// A list of objects
    Json,
}

/// Prints the findings; whether none of them is a failure.
///
/// # Errors
/// A file with settings cannot be read, or the output cannot be written.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<bool> {
    if arguments.list {
        for rule in validate::rules() {
            writeln!(out, "{}: {}", rule.name, rule.about)?;
        }
        return Ok(true);
    }
    let mut directory =
        Directory::new(arguments.paths.clone()).with_default_namespace(&arguments.namespace);
    let set = directory.load();
    if set.objects.is_empty() && set.failures.is_empty() {
        bail!("no objects in {}", shown(&arguments.paths));
    }
    let settings = Settings {
        mesh_config: arguments.mesh_config.clone(),
        mesh_networks: arguments.mesh_networks.clone(),
    };
    let mesh = settings.mesh(&set)?;
    let mut findings = everything(&set, &mesh);
    findings.retain(|finding| {
        finding.level() >= arguments.output_threshold
            && !is_suppressed(finding, &arguments.suppress)
    });
    let good = findings.worst().is_none_or(|worst| worst < arguments.failure_threshold);
    print(&findings, &set, arguments, out)?;
    Ok(good)
}

/// Everything there is to say about a mesh: what is wrong with it, and what of it has no effect.
pub fn everything(set: &ObjectSet, mesh: &Mesh) -> Findings {
    let mut findings = validate::everything(set, mesh);
    unapplied::report(mesh, &mut findings);
    findings.suppress_annotated(mesh);
    findings.sort();
    findings
}

fn print(
    findings: &Findings,
    set: &ObjectSet,
    arguments: &Arguments,
    out: &mut dyn Write,
) -> Result<()> {
    match arguments.output {
        Output::Json => json::print(findings, out),
        Output::Text => {
            let coloured = arguments.color.unwrap_or_else(|| text::coloured(&std::io::stdout()));
            text::print(findings, set.objects.len(), &shown(&arguments.paths), coloured, out)
        }
    }
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

/// `CODE`, or `CODE=Kind name` where the name may have `*` in it.
fn is_suppressed(finding: &Finding, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| {
        let (code, subject) = pattern.split_once('=').unwrap_or((pattern, "*"));
        code == finding.code.id && is_like(&finding.subject.to_string(), subject)
    })
}

fn is_like(text: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).filter_map(|at| text.get(at..)).any(|text| is_like(text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        assert!(is_like("Namespace a-test", "Namespace *-test"));
        assert!(is_like("anything", "*") && is_like("a", "a") && is_like("abc", "a*b*c"));
        assert!(!is_like("Namespace a", "Namespace *-test") && !is_like("ab", "a"));
    }
}
