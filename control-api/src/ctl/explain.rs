//! `outriggerctl explain`: how a request of a workload fares, and which lines of which files say so.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Control, Output, fetch};
use crate::analyze::explain::report::Report;
use crate::analyze::explain::{Question, offline};
use crate::source::directory::Directory;
use crate::source::settings::Settings;

/// Explain which way a request of a workload takes, who may answer it, and which lines say so
///
/// The listener, route, cluster and endpoints that the workload's proxy chooses, the mTLS that is spoken, and what the
/// server's policies say, each with the file and line it comes from. Nothing is sent. With files or folders it is what
/// a control plane would make of them, each Deployment standing for one pod; without, what the running one makes of its
/// mesh.
#[derive(Debug, Args)]
#[command(visible_alias = "describe", after_long_help = HELP)]
pub(super) struct Arguments {
    /// Files and folders, if it is about them, then method and URL
    #[arg(required = true, num_args = 1.., value_name = "PATH]... [METHOD] <URL")]
    what: Vec<String>,

    /// The workload that asks: its pod, Deployment or WorkloadEntry
    #[arg(long, value_name = "NAME.NAMESPACE")]
    from: String,

    /// A header of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// The namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// The mesh's settings, as in the ConfigMap `istio`
    #[arg(long, visible_alias = "meshConfigFile", value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Short)]
    output: Output,

    #[command(flatten)]
    control: Control,
}

const HELP: &str = "\
Examples:
  outriggerctl explain mesh/ --from productpage-v1.default GET http://reviews:9080/
                                               what a folder of YAML would make of it
  outriggerctl explain --from productpage-v1.default http://reviews:9080/ -H 'end-user: jason'
                                               what the running control plane makes of it
  outriggerctl explain mesh/ --from istio-ingressgateway.istio-system https://shop.example/ -o json

Exit code: 0 if the request is answered, or may be; 1 if it is refused or goes nowhere, 2 for wrong arguments.";

/// What is printed, and whether the request comes to a good end.
pub(super) async fn run(arguments: &Arguments) -> Result<(String, bool)> {
    let (paths, question) = arguments.question()?;
    let report = if paths.is_empty() {
        let answer = fetch::json(arguments.control.address(), &path(&question)).await?;
        serde_json::from_value(answer).context("the control plane explains it in another form")?
    } else {
        arguments.offline(paths, &question)?
    };
    let Report { served, .. } = report;
    let document = arguments.output.document(&serde_json::to_value(&report)?);
    Ok((document.unwrap_or_else(|| report.text()), served))
}

impl Arguments {
    /// Files and folders, and what is asked.
    fn question(&self) -> Result<(&[String], Question)> {
        let Some((url, rest)) = self.what.split_last() else { bail!("no URL is given") };
        let is_method = |it: &str| it.bytes().all(|it| it.is_ascii_uppercase());
        let (method, paths) = match rest.split_last() {
            Some((method, paths)) if is_method(method) => (method.as_str(), paths),
            _ => ("GET", rest),
        };
        let question = Question {
            from: self.from.clone(),
            method: method.to_owned(),
            url: url.clone(),
            headers: self.headers.clone(),
        };
        Ok((paths, question))
    }

    fn offline(&self, paths: &[String], question: &Question) -> Result<Report> {
        let mut directory =
            Directory::new(paths.iter().map(PathBuf::from)).with_default_namespace(&self.namespace);
        let set = directory.load();
        if set.objects.is_empty() {
            bail!("no objects in {}", paths.join(", "));
        }
        let settings = Settings { mesh_config: self.mesh_config.clone(), ..Settings::default() };
        offline(&settings.mesh(&set)?, question)
    }
}

/// Where the control plane answers.
fn path(question: &Question) -> String {
    let Question { from, method, url, headers } = question;
    let named = [("from", from), ("method", method), ("url", url)];
    let all = named.into_iter().chain(headers.iter().map(|it| ("header", it)));
    let pairs = all.map(|(name, value)| format!("{name}={}", encoded(value)));
    format!("/api/v1/explain?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A value of a query.
fn encoded(value: &str) -> String {
    let byte = |it: u8| match it {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(it).to_string()
        }
        other => format!("%{other:02X}"),
    };
    value.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_path_of_the_control_plane() {
        let question = Question {
            from: "web-1.shop".to_owned(),
            method: "GET".to_owned(),
            url: "http://a/?b=c".to_owned(),
            headers: vec!["x: 1 2".to_owned()],
        };
        let expected = "/api/v1/explain?from=web-1.shop&method=GET&url=http%3A%2F%2Fa%2F%3Fb%3Dc&header=x%3A%201%202";
        assert_eq!(path(&question), expected);
    }
}
