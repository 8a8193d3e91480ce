//! What one response says, and how it is written in either variant.

use std::sync::Arc;

use prost_types::Any;

use crate::envoy::config::core::v3::ControlPlane;
use crate::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource as Wrapped,
};
use crate::snapshot::Entry;
use crate::type_url::ResourceType;

/// What one response says.
#[derive(Debug, Default)]
pub(super) struct Push {
    /// Of the response.
    pub(super) version: String,
    /// What the client does not have, or has to be told again.
    pub(super) changed: Vec<Arc<Entry>>,
    /// What it has, in a response that has to hold everything.
    pub(super) kept: Vec<Arc<Entry>>,
    /// Names of what is gone.
    pub(super) removed: Vec<String>,
    /// Subscribed names that stand for nothing.
    pub(super) unknown: Vec<String>,
    /// What it has and may keep for another while ("TTL").
    pub(super) renewed: Vec<Arc<Entry>>,
}

impl Push {
    /// Whether it says something.
    pub(super) fn is_something(&self) -> bool {
        !(self.changed.is_empty() && self.removed.is_empty() && self.unknown.is_empty())
    }

    /// The resources that are in it.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.changed.iter().chain(&self.kept)
    }

    pub(super) fn sotw(
        self,
        kind: ResourceType,
        nonce: String,
        control_plane: Option<ControlPlane>,
        client_unwraps: bool,
    ) -> DiscoveryResponse {
        let Self { version, changed, kept, removed: _, unknown: _, renewed } = self;
        let pack = |entry: &Arc<Entry>| {
            if entry.ttl().is_none() || !client_unwraps {
                return Some(entry.body().clone());
            }
            Any::from_msg(&wrapped(entry, &version)).ok()
        };
        let full = changed.iter().chain(&kept).filter_map(pack);
        let beat = |entry: &Arc<Entry>| {
            Any::from_msg(&Wrapped { resource: None, ..wrapped(entry, &version) }).ok()
        };
        let resources = full.chain(renewed.iter().filter_map(beat)).collect();
        DiscoveryResponse {
            version_info: version,
            resources,
            canary: false,
            type_url: kind.url().to_owned(),
            nonce,
            control_plane,
            resource_errors: Vec::new(),
        }
    }

    pub(super) fn delta(
        self,
        kind: ResourceType,
        nonce: String,
        control_plane: Option<ControlPlane>,
    ) -> DeltaDiscoveryResponse {
        let Self { version, changed, kept, mut removed, mut unknown, renewed } = self;
        let full = changed.iter().chain(&kept).map(|entry| wrapped(entry, entry.version()));
        let beat =
            |entry: &Arc<Entry>| Wrapped { resource: None, ..wrapped(entry, entry.version()) };
        let resources = full.chain(renewed.iter().map(beat)).collect();
        // Unknown aliases of virtual hosts have a form of their own ("Resource names").
        if kind != ResourceType::VirtualHost {
            removed.append(&mut unknown);
        }
        let mut response = DeltaDiscoveryResponse {
            system_version_info: version,
            resources,
            type_url: kind.url().to_owned(),
            removed_resources: removed,
            removed_resource_names: Vec::new(),
            nonce,
            control_plane,
            resource_errors: Vec::new(),
        };
        response.resources.extend(unknown.into_iter().map(|alias| Wrapped {
            aliases: vec![alias.clone()],
            name: alias,
            ..Wrapped::default()
        }));
        response
    }
}

fn wrapped(entry: &Entry, version: &str) -> Wrapped {
    Wrapped {
        name: entry.name().to_string(),
        resource_name: None,
        aliases: entry.aliases().to_vec(),
        version: version.to_owned(),
        resource: Some(entry.body().clone()),
        ttl: entry.ttl().and_then(|ttl| ttl.try_into().ok()),
        cache_control: None,
        metadata: None,
    }
}
