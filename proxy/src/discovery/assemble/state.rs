//! All resources that were accepted, static and from files, and which files they want.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use xds::yaml::Error as Located;

use crate::config::cluster::{Cluster, Discovery};
use crate::config::endpoint::LoadAssignment;
use crate::config::http::RouteSource;
use crate::config::listener::{FilterChain, Listener};
use crate::config::route::RouteConfig;
use crate::config::source::{ConfigSource, FileSource, ResourceSource};
use crate::config::tls::{CommonTls, Secret, SecretName};
use crate::discovery::Unpublished;
use crate::discovery::file::bootstrap::BootstrapFile;
use crate::discovery::file::{FileKey, Item, Kind, Origin, Resource, ResourceFile};
use crate::discovery::own::OwnSecrets;
use crate::tls::secrets::Secrets;

/// A consistent set of accepted files. Cloning it is cheap: the files are shared.
#[derive(Debug, Clone)]
pub(in crate::discovery) struct State {
    pub(in crate::discovery) bootstrap: Arc<BootstrapFile>,
    pub(in crate::discovery) files: BTreeMap<FileKey, Arc<ResourceFile>>,
    /// Secrets that no file and no server is asked for.
    pub(in crate::discovery) own: Arc<OwnSecrets>,
}

/// A resource and where it is written.
pub(super) struct Placed<'a, T> {
    pub(super) value: &'a Arc<T>,
    pub(super) origin: Origin,
}

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
    source: ResourceSource,
    /// The resource that asks for it.
    pub(super) origin: Origin,
    /// The field there, as far as it is the same for all sources.
    path: String,
}

impl Asked {
    /// The field of the resource that asks for it.
    pub(super) fn path(&self) -> String {
        let Self { kind, source, path, .. } = self;
        match &source.source {
            // The context may name several secrets.
            _ if *kind == Kind::Secret => path.clone(),
            ConfigSource::File(_) => format!("{path}.path_config_source.path"),
            ConfigSource::Ads => format!("{path}.ads"),
            ConfigSource::Grpc(_) => format!("{path}.api_config_source"),
        }
    }
}

impl State {
    /// Where it is written that a listener cannot be served.
    pub(super) fn locate(&self, Unpublished { listener, error }: Unpublished) -> Located {
        let listeners = self.listeners();
        match listeners.iter().find(|placed| placed.value.name == listener) {
            Some(placed) => placed.origin.locate(error),
            None => self.bootstrap.locate(error),
        }
    }

    /// All listeners: static ones, then discovered ones of other names.
    pub(super) fn listeners(&self) -> Vec<Placed<'_, Listener>> {
        let listeners = &self.bootstrap.config.listeners;
        let fixed = listeners.iter().enumerate().map(|(index, value)| Placed {
            value,
            origin: self.bootstrap.origin("listeners", index),
        });
        let discovered =
            self.items(Kind::Listener, &self.bootstrap.config.lds).filter_map(|item| {
                let Resource::Listener(value) = &item.resource else { return None };
                let shadowed = listeners.iter().any(|listener| listener.name == value.name);
                (!shadowed).then(|| Placed { value, origin: item.origin.clone() })
            });
        fixed.chain(discovered).collect()
    }

    /// All clusters: static ones, then discovered ones of other names.
    pub(super) fn clusters(&self) -> Vec<Placed<'_, Cluster>> {
        let clusters = &self.bootstrap.config.clusters;
        let names: BTreeSet<&str> = clusters.iter().map(|cluster| &*cluster.name).collect();
        let fixed = clusters.iter().enumerate().map(|(index, value)| Placed {
            value,
            origin: self.bootstrap.origin("clusters", index),
        });
        let discovered = self.items(Kind::Cluster, &self.bootstrap.config.cds).filter_map(|item| {
            let Resource::Cluster(value) = &item.resource else { return None };
            let shadowed = names.contains(&*value.name);
            (!shadowed).then(|| Placed { value, origin: item.origin.clone() })
        });
        fixed.chain(discovered).collect()
    }

    /// The discovered route table, if its file has it.
    pub(super) fn routes(&self, source: &ResourceSource) -> Option<(&Arc<RouteConfig>, &Origin)> {
        let item = self.item(Kind::Routes, source)?;
        match &item.resource {
            Resource::Routes(routes) => Some((routes, &item.origin)),
            _ => None,
        }
    }

    /// The discovered endpoints, if their file has them.
    pub(super) fn endpoints(&self, source: &ResourceSource) -> Option<&Arc<LoadAssignment>> {
        match &self.item(Kind::Endpoints, source)?.resource {
            Resource::Endpoints(assignment) => Some(assignment),
            _ => None,
        }
    }

    /// The secret of this name, if it is known.
    pub(super) fn secret(&self, name: &SecretName) -> Option<Arc<Secret>> {
        match name {
            SecretName::Static(name) => {
                let mut secrets = self.bootstrap.config.secrets.iter();
                secrets.find(|secret| secret.name == *name).map(|it| Arc::new(it.clone()))
            }
            SecretName::Discovered(source) if self.own.answer(source) => self.own.get(&source.name),
            SecretName::Discovered(source) => match &self.item(Kind::Secret, source)?.resource {
                Resource::Secret(secret) => Some(Arc::clone(secret)),
                _ => None,
            },
        }
    }

    /// Whether `context` needs a secret that this process's own agent has not obtained yet.
    pub(super) fn waits_for_agent(&self, context: &CommonTls) -> bool {
        let discovered = discovered_secrets(context);
        discovered.iter().any(|it| self.own.answer(it) && self.own.get(&it.name).is_none())
    }

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
        if let Some(file) = &bootstrap.lds {
            want(Kind::Listener, file, &root, "lds_config.path_config_source.path");
        }
        if let Some(file) = &bootstrap.cds {
            want(Kind::Cluster, file, &root, "cds_config.path_config_source.path");
        }
        for asked in self.asked() {
            if let Some(file) = asked.source.source.file() {
                want(asked.kind, file, &asked.origin, &asked.path());
            }
        }
        wanted
    }

    /// What resources ask of management servers.
    pub(super) fn asked_of_servers(&self) -> impl Iterator<Item = Asked> {
        let elsewhere = |asked: &Asked| {
            asked.source.source.file().is_none()
                && !(asked.kind == Kind::Secret && self.own.answer(&asked.source))
        };
        self.asked().into_iter().filter(elsewhere)
    }

    /// The resources that others ask for, wherever they come from.
    fn asked(&self) -> Vec<Asked> {
        let mut all = Vec::new();
        let mut ask = |kind, source: ResourceSource, origin: &Origin, path: String| {
            all.push(Asked { kind, source, origin: origin.clone(), path });
        };
        for Placed { value, origin } in self.clusters() {
            if let Discovery::Eds(source) = &value.discovery {
                ask(Kind::Endpoints, source.clone(), &origin, EDS_PATH.to_owned());
            }
            for (path, tls) in cluster_tls(value) {
                for source in discovered_secrets(&tls.common) {
                    ask(Kind::Secret, source, &origin, path.clone());
                }
            }
        }
        for Placed { value, origin } in self.listeners() {
            for (path, chain) in chains(value) {
                if let Some(http) = chain.http()
                    && let RouteSource::Rds(source) = &http.routes
                {
                    let path = format!("{path}.{}.{RDS_PATH}", chain.terminal_path());
                    ask(Kind::Routes, source.clone(), &origin, path);
                }
                if let Some(tls) = &chain.tls {
                    for source in discovered_secrets(&tls.common) {
                        ask(Kind::Secret, source, &origin, format!("{path}.{TLS_PATH}"));
                    }
                }
            }
        }
        all
    }

    fn items(&self, kind: Kind, file: &Option<FileSource>) -> impl Iterator<Item = &Item> {
        let key = file.as_ref().map(|file| FileKey { kind, path: file.path.clone() });
        let file = key.and_then(|key| self.files.get(&key));
        file.into_iter().flat_map(|file| file.items.values())
    }

    fn item(&self, kind: Kind, source: &ResourceSource) -> Option<&Item> {
        let key = FileKey { kind, path: source.source.file()?.path.clone() };
        self.files.get(&key)?.items.get(&source.name)
    }
}

/// Path of a chain's or cluster's TLS context.
pub(super) const TLS_PATH: &str = "transport_socket.typed_config";
/// Path of the source of a cluster's endpoints.
const EDS_PATH: &str = "eds_cluster_config.eds_config";
/// Path of the source of a discovered route table, from its connection manager.
const RDS_PATH: &str = "rds.config_source";

/// The chains of a listener with their paths, the default last.
pub(super) fn chains(listener: &Listener) -> impl Iterator<Item = (String, &Arc<FilterChain>)> {
    let numbered = listener.filter_chains.iter().enumerate();
    numbered.map(|(index, chain)| (format!("filter_chains[{index}]"), chain)).chain(
        listener.default_filter_chain.iter().map(|it| ("default_filter_chain".to_owned(), it)),
    )
}

/// The TLS contexts of a cluster with their paths: its own, then those of its matches.
pub(super) fn cluster_tls(
    cluster: &Cluster,
) -> impl Iterator<Item = (String, &Arc<crate::config::tls::UpstreamTls>)> {
    let matches = cluster.transport_socket_matches.iter().enumerate();
    cluster.tls.iter().map(|tls| (TLS_PATH.to_owned(), tls)).chain(matches.filter_map(
        |(index, it)| {
            Some((format!("transport_socket_matches[{index}].{TLS_PATH}"), it.tls.as_ref()?))
        },
    ))
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
