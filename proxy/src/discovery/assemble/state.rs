//! All resources that were accepted: static ones, those of files and those of management servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::yaml::Error as Located;

use crate::config::HashMap;
use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::config::listener::{FilterChain, Listener};
use crate::config::route::RouteConfig;
use crate::config::source::{ConfigSource, ResourceSource};
use crate::config::tls::{Secret, SecretName};
use crate::discovery::Unpublished;
use crate::discovery::file::bootstrap::BootstrapFile;
use crate::discovery::file::{FileKey, Item, Kind, Origin, Resource, ResourceFile};
use crate::discovery::own::OwnSecrets;
use crate::discovery::served::{Served, ServedKey};

/// A consistent set of accepted files. Cloning it is cheap: the files are shared.
#[derive(Debug, Clone)]
pub(in crate::discovery) struct State {
    pub(in crate::discovery) bootstrap: Arc<BootstrapFile>,
    pub(in crate::discovery) files: BTreeMap<FileKey, Arc<ResourceFile>>,
    pub(in crate::discovery) served: HashMap<ServedKey, Arc<Served>>,
    /// Secrets that no file and no server is asked for.
    pub(in crate::discovery) own: Arc<OwnSecrets>,
}

/// A resource and where it is written.
pub(super) struct Placed<'a, T> {
    pub(super) value: &'a Arc<T>,
    pub(super) origin: Origin,
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

    /// What a discovered filter is, if that is known.
    pub(super) fn extension(
        &self,
        source: &ResourceSource,
    ) -> Option<(&Arc<TypedExtensionConfig>, &Origin)> {
        let item = self.item(Kind::Extension, source)?;
        match &item.resource {
            Resource::Extension(extension) => Some((extension, &item.origin)),
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

    fn items(
        &self,
        kind: Kind,
        source: &Option<ConfigSource>,
    ) -> Box<dyn Iterator<Item = &Item> + '_> {
        match source {
            None => Box::new(std::iter::empty()),
            Some(ConfigSource::File(file)) => {
                let file = self.files.get(&FileKey { kind, path: file.path.clone() });
                Box::new(file.into_iter().flat_map(|file| file.items.values()))
            }
            Some(ConfigSource::Server(source)) => {
                let set = self.served.get(&ServedKey { kind, server: source.server.clone() });
                Box::new(set.into_iter().flat_map(|set| set.active.values().map(|item| &**item)))
            }
        }
    }

    fn item(&self, kind: Kind, source: &ResourceSource) -> Option<&Item> {
        match &source.source {
            ConfigSource::File(file) => {
                let key = FileKey { kind, path: file.path.clone() };
                self.files.get(&key)?.items.get(&source.name)
            }
            ConfigSource::Server(server) => {
                let key = ServedKey { kind, server: server.server.clone() };
                self.served.get(&key)?.active.get(&source.name).map(|item| &**item)
            }
        }
    }
}

/// Path of a chain's or cluster's TLS context.
pub(super) const TLS_PATH: &str = "transport_socket.typed_config";
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
