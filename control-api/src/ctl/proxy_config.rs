//! `outriggerctl proxy-config`: what a proxy is told, or what it says it has.

mod rows;
mod secrets;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use self::rows::Filter;
use super::{Control, Output, fetch};

/// Show clusters, listeners, routes, endpoints or secrets of a proxy
#[derive(Debug, Args)]
#[command(visible_alias = "pc", after_long_help = HELP)]
pub(super) struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

const HELP: &str = "\
Examples:
  outriggerctl proxy-config clusters web-1.shop              what the control plane tells it
  outriggerctl proxy-config routes --admin 127.0.0.1:15000   what that proxy has, ours or an Envoy
  outriggerctl proxy-config listeners -f dump.json -o yaml   what somebody saved of its /config_dump";

#[derive(Debug, Subcommand)]
enum Kind {
    /// Where it may send requests
    #[command(visible_aliases = ["cluster", "c"])]
    Clusters(Of),
    /// Where it listens
    #[command(visible_aliases = ["listener", "l"])]
    Listeners(Of),
    /// The routes it was sent
    #[command(visible_aliases = ["route", "r"])]
    Routes(Of),
    /// What stands behind its clusters
    #[command(visible_aliases = ["endpoint", "ep"])]
    Endpoints(Of),
    /// Its certificates and bundles; keys are left out
    #[command(visible_aliases = ["secret", "s"])]
    Secrets(Of),
    /// All of these
    #[command(visible_alias = "a")]
    All(Of),
}

#[derive(Debug, Args)]
struct Of {
    /// A proxy that is connected to the control plane: its node id, or NAME.NAMESPACE
    #[arg(required_unless_present_any = ["admin", "file"])]
    proxy: Option<String>,

    /// Ask the proxy itself, at its admin address
    #[arg(long, value_name = "ADDRESS", conflicts_with = "proxy")]
    admin: Option<String>,

    /// Take a saved /config_dump
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["proxy", "admin"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    filter: Filter,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Short)]
    output: Output,

    #[command(flatten)]
    control: Control,
}

/// What is printed.
pub(super) async fn run(arguments: &Arguments) -> Result<(String, bool)> {
    let (of, kinds): (&Of, &[Section]) = match &arguments.kind {
        Kind::Clusters(of) => (of, &[Section::Clusters]),
        Kind::Listeners(of) => (of, &[Section::Listeners]),
        Kind::Routes(of) => (of, &[Section::Routes]),
        Kind::Endpoints(of) => (of, &[Section::Endpoints]),
        Kind::Secrets(of) => (of, &[Section::Secrets]),
        Kind::All(of) => (of, &Section::ALL),
    };
    let dump = of.dump().await?;
    let sections = kinds.iter().map(|kind| (*kind, of.filter.resources(*kind, &dump)));
    let sections: Vec<(Section, Vec<Value>)> = sections.collect();
    let whole = match sections.as_slice() {
        [(_, resources)] => json!(resources),
        _ => {
            let fields = sections.iter().map(|(kind, all)| (kind.name().to_owned(), json!(all)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    };
    if let Some(document) = of.output.document(&whole) {
        return Ok((document, true));
    }
    let tables = sections.iter().map(|(kind, resources)| rows::table(*kind, resources));
    Ok((tables.collect::<Vec<_>>().join("\n"), true))
}

impl Of {
    async fn dump(&self) -> Result<Value> {
        if let Some(file) = &self.file {
            let shown = file.display();
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
            return serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"));
        }
        if let Some(admin) = &self.admin {
            return fetch::json(admin, "/config_dump?include_eds").await;
        }
        let proxy = self.proxy.as_deref().unwrap_or_default();
        fetch::json(self.control.address(), &format!("/api/v1/proxies/{proxy}/config")).await
    }
}

/// A kind of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Clusters,
    Listeners,
    Routes,
    Endpoints,
    Secrets,
}

impl Section {
    const ALL: [Self; 5] =
        [Self::Clusters, Self::Listeners, Self::Routes, Self::Endpoints, Self::Secrets];

    fn name(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Listeners => "listeners",
            Self::Routes => "routes",
            Self::Endpoints => "endpoints",
            Self::Secrets => "secrets",
        }
    }

    /// All of a kind in a dump of Envoy's form: what is active, and what came with the bootstrap.
    fn resources(self, dump: &Value) -> Vec<&Value> {
        let (message, lists, field): (&str, &[&str], &str) = match self {
            Self::Clusters => {
                ("ClustersConfigDump", &["dynamic_active_clusters", "static_clusters"], "/cluster")
            }
            Self::Listeners => {
                ("ListenersConfigDump", &["dynamic_listeners", "static_listeners"], "")
            }
            Self::Routes => (
                "RoutesConfigDump",
                &["dynamic_route_configs", "static_route_configs"],
                "/route_config",
            ),
            Self::Endpoints => (
                "EndpointsConfigDump",
                &["dynamic_endpoint_configs", "static_endpoint_configs"],
                "/endpoint_config",
            ),
            Self::Secrets => {
                ("SecretsConfigDump", &["dynamic_active_secrets", "static_secrets"], "/secret")
            }
        };
        let configs = dump["configs"].as_array().into_iter().flatten();
        let of_kind =
            configs.filter(|it| it["@type"].as_str().is_some_and(|url| url.ends_with(message)));
        of_kind
            .flat_map(|config| lists.iter().filter_map(|list| config[*list].as_array()).flatten())
            .filter_map(|entry| match self {
                Self::Listeners => {
                    entry.pointer("/active_state/listener").or_else(|| entry.get("listener"))
                }
                _ => entry.pointer(field),
            })
            .collect()
    }
}
