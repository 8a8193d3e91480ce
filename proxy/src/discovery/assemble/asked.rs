//! What resources ask for: files, and what management servers have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::state::{Placed, State, TLS_PATH, chains, cluster_tls};
use crate::config::cluster::{Cluster, Discovery};
use crate::config::http::RouteSource;
use crate::config::http_filter::FilterKind;
use crate::config::listener::Listener;
use crate::config::source::{ConfigSource, FileSource, ResourceSource};
use crate::config::tls::{CommonTls, SecretName};
use crate::config::{HashMap, Name};
use crate::discovery::file::{FileKey, Kind, Origin, Resource};
use crate::discovery::served::ServedKey;
use crate::tls::secrets::Secrets;

/// Path of the source of a cluster's endpoints.
const EDS_PATH: &str = "eds_cluster_config.eds_config";
/// Path of the source of a discovered route table, from its connection manager.
const RDS_PATH: &str = "rds.config_source";

/// Why a file is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The first resource that names it, with the path of the field.
    pub(super) origin: Origin,
    /// Directories in which any change means that the file is to be read again.
    pub(super) directories: BTreeSet<PathBuf>,
}

/// A resource that another one asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// What it is.
    kind: Kind,
    /// Where it comes from.
    pub(super) source: ResourceSource,
    /// The field in who asks, as far as it is the same for all sources.
    path: String,
}

impl Asked {
    /// The field of the resource that asks for it.
    pub(super) fn path(&self) -> String {
        let Self { kind, source, path, .. } = self;
        match &source.source {
            // The context may name several secrets.
            _ if *kind == Kind::Secret => path.clone(),
            source => format!("{path}.{}", field(source)),
        }
    }

    /// Of which server, and how long it may be waited for, if it comes from one.
    fn served(&self) -> Option<(ServedKey, &Name, Duration)> {
        let source = self.source.source.server()?;
        let key = ServedKey { kind: self.kind, server: source.server.clone() };
        Some((key, &self.source.name, source.fetch_timeout))
    }
}

/// The field of a `ConfigSource` that says what holds the resources.
fn field(source: &ConfigSource) -> &'static str {
    match source {
        ConfigSource::File(_) => "path_config_source.path",
        ConfigSource::Server(source) => match source.server {
            crate::config::source::Server::Ads => "ads",
            crate::config::source::Server::Grpc(_) => "api_config_source",
        },
    }
}

/// Names of resources that are needed, of each kind and server, and how long they may be waited for.
pub(in crate::discovery) type Needed = HashMap<ServedKey, BTreeMap<Name, Duration>>;

impl State {
    /// Every file that some resource wants.
    pub(super) fn wanted(&self) -> BTreeMap<FileKey, Wanted> {
        let mut wanted = BTreeMap::new();
        let mut want = |kind: Kind, file: &FileSource, origin: &Origin, path: &str| {
            let key = FileKey { kind, path: file.path.clone() };
            let entry = wanted.entry(key).or_insert_with(|| Wanted {
                origin: origin.below(path),
                directories: BTreeSet::new(),
            });
            entry.directories.extend(file.watched_directory.clone());
        };
        let bootstrap = &self.bootstrap.config;
        let root = self.bootstrap.root("dynamic_resources");
        if let Some(file) = bootstrap.lds.as_ref().and_then(ConfigSource::file) {
            want(Kind::Listener, file, &root, "lds_config.path_config_source.path");
        }
        if let Some(file) = bootstrap.cds.as_ref().and_then(ConfigSource::file) {
            want(Kind::Cluster, file, &root, "cds_config.path_config_source.path");
        }
        for (origin, asked) in self.asked() {
            if let Some(file) = asked.source.source.file() {
                want(asked.kind, file, &origin, &asked.path());
            }
        }
        wanted
    }

    /// What resources ask for, and where those are written.
    pub(super) fn asked(&self) -> Vec<(Origin, Asked)> {
        let mut all = Vec::new();
        for Placed { value, origin } in self.clusters() {
            all.extend(by_cluster(value).into_iter().map(|asked| (origin.clone(), asked)));
        }
        for Placed { value, origin } in self.listeners() {
            all.extend(by_listener(value).into_iter().map(|asked| (origin.clone(), asked)));
        }
        all
    }

    /// What is needed of management servers, by resources in use and by those that wait.
    pub(in crate::discovery) fn needed(&self) -> Needed {
        let mut needed = Needed::default();
        let mut need = |asked: &Asked| {
            if let Some((key, name, timeout)) = self.streamed(asked) {
                needed.entry(key).or_default().entry(name.clone()).or_insert(timeout);
            }
        };
        self.asked().iter().for_each(|(_, asked)| need(asked));
        for set in self.served.values() {
            for item in set.warming.values() {
                by(&item.resource).iter().for_each(&mut need);
            }
        }
        needed
    }

    /// Whether everything has come, or is known not to come, that `resource` needs of management servers.
    pub(in crate::discovery) fn is_warm(&self, resource: &Resource) -> bool {
        by(resource)
            .iter()
            .filter_map(|it| self.streamed(it))
            .all(|(key, name, _)| self.has(&key, name))
    }

    /// Whether all clusters, or all listeners, can be used as they are.
    pub(super) fn are_warm(&self, kind: Kind) -> bool {
        let waits =
            |(key, set): (&ServedKey, &std::sync::Arc<crate::discovery::served::Served>)| {
                key.kind == kind && !set.warming.is_empty()
            };
        if self.served.iter().any(waits) {
            return false;
        }
        let asked = match kind {
            Kind::Cluster => {
                self.clusters().into_iter().flat_map(|it| by_cluster(it.value)).collect::<Vec<_>>()
            }
            _ => self.listeners().into_iter().flat_map(|it| by_listener(it.value)).collect(),
        };
        asked.iter().filter_map(|it| self.streamed(it)).all(|(key, name, _)| self.has(&key, name))
    }

    /// The same as [`Asked::served`], but for secrets that this process has itself.
    fn streamed<'a>(&self, asked: &'a Asked) -> Option<(ServedKey, &'a Name, Duration)> {
        asked.served().filter(|_| !self.is_own(asked))
    }

    /// Whether it is a secret that this process has itself.
    pub(super) fn is_own(&self, asked: &Asked) -> bool {
        asked.kind == Kind::Secret && self.own.answer(&asked.source)
    }

    /// Whether `context` needs a secret that this process's own agent has not obtained yet.
    pub(super) fn waits_for_agent(&self, context: &CommonTls) -> bool {
        let discovered = discovered_secrets(context);
        discovered.iter().any(|it| self.own.answer(it) && self.own.get(&it.name).is_none())
    }

    fn has(&self, key: &ServedKey, name: &Name) -> bool {
        let set = self.served.get(key);
        set.is_some_and(|set| set.active.contains_key(name) || set.absent.contains(name))
    }
}

/// What a resource asks for.
fn by(resource: &Resource) -> Vec<Asked> {
    match resource {
        Resource::Cluster(cluster) => by_cluster(cluster),
        Resource::Listener(listener) => by_listener(listener),
        _ => Vec::new(),
    }
}

fn by_cluster(cluster: &Cluster) -> Vec<Asked> {
    let mut all = Vec::new();
    if let Discovery::Eds(source) = &cluster.discovery {
        let (source, path) = (source.clone(), EDS_PATH.to_owned());
        all.push(Asked { kind: Kind::Endpoints, source, path });
    }
    for (path, tls) in cluster_tls(cluster) {
        for source in discovered_secrets(&tls.common) {
            all.push(Asked { kind: Kind::Secret, source, path: path.clone() });
        }
    }
    all
}

fn by_listener(listener: &Listener) -> Vec<Asked> {
    let mut all = Vec::new();
    for (path, chain) in chains(listener) {
        if let Some(http) = chain.http() {
            let manager = || format!("{path}.{}", chain.terminal_path());
            if let RouteSource::Rds(source) = &http.routes {
                let path = format!("{}.{RDS_PATH}", manager());
                all.push(Asked { kind: Kind::Routes, source: source.clone(), path });
            }
            for filter in &http.filters {
                if let FilterKind::Discovered(discovered) = &filter.kind {
                    let (name, source) = (filter.name.clone(), discovered.source.clone());
                    let source = ResourceSource { name, source };
                    let path = format!("{}.http_filters.config_discovery.config_source", manager());
                    all.push(Asked { kind: Kind::Extension, source, path });
                }
            }
        }
        if let Some(tls) = &chain.tls {
            for source in discovered_secrets(&tls.common) {
                let path = format!("{path}.{TLS_PATH}");
                all.push(Asked { kind: Kind::Secret, source, path });
            }
        }
    }
    all
}

fn discovered_secrets(context: &CommonTls) -> Vec<ResourceSource> {
    let names = Secrets::default().missing(context);
    names
        .into_iter()
        .filter_map(|name| match name {
            SecretName::Discovered(source) => Some(source),
            SecretName::Static(_) => None,
        })
        .collect()
}
