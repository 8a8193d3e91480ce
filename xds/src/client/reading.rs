//! What a response says: which resources it offers, renews and takes away, and what is wrong with it before anyone
//! looks into the resources.

use std::collections::BTreeSet;
use std::time::Duration;

use super::track::Track;
use super::{Received, Rejection, Update};
use crate::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, ResourceError,
};
use crate::resource::{Malformed, Offered, digest};
use crate::type_url::ResourceType;

/// google.rpc.Code.
const NOT_FOUND: i32 = 5;

/// Reads a state-of-the-world response. One of clusters or listeners holds all there are: what is held and is not in
/// it is removed ("Deleting Resources"), unless that cannot be told as something in it has no name.
pub(super) fn sotw(
    kind: ResourceType,
    response: DiscoveryResponse,
    track: &Track,
    stream: u64,
) -> Update {
    let DiscoveryResponse {
        version_info,
        resources,
        canary: _,
        type_url: _,
        nonce,
        control_plane: _,
        resource_errors,
    } = response;
    let offered = resources.into_iter().map(|any| Offered::packed(kind, any, &version_info));
    let mut read = Reading::default();
    offered.for_each(|offered| read.offer(offered, track));
    read.errors(resource_errors, track);
    if kind.is_full_state() && read.is_complete() {
        let gone = track.held().filter(|(name, _)| !read.seen.contains(*name));
        let gone: Vec<String> = gone.map(|(name, _)| name.to_owned()).collect();
        read.removed.extend(gone);
    }
    read.update(kind, version_info, nonce, stream)
}

/// Reads an incremental response.
pub(super) fn delta(
    kind: ResourceType,
    response: DeltaDiscoveryResponse,
    track: &Track,
    stream: u64,
) -> Update {
    let DeltaDiscoveryResponse {
        system_version_info,
        resources,
        type_url: _,
        removed_resources,
        removed_resource_names,
        nonce,
        control_plane: _,
        resource_errors,
    } = response;
    let mut read = Reading::default();
    for resource in resources {
        read.offer(Offered::wrapped(kind, resource), track);
    }
    let variants = removed_resource_names.into_iter().map(|variant| variant.name);
    for name in removed_resources.into_iter().chain(variants) {
        read.remove(name);
    }
    read.errors(resource_errors, track);
    read.update(kind, system_version_info, nonce, stream)
}

#[derive(Default)]
struct Reading {
    /// Every name in the response.
    seen: BTreeSet<String>,
    twice: Option<String>,
    nameless: bool,
    resources: Vec<Received>,
    removed: Vec<String>,
    withheld: Vec<Rejection>,
    faults: Vec<Rejection>,
    lifetimes: Vec<(String, Option<Duration>)>,
}

impl Reading {
    fn offer(&mut self, offered: Result<Offered, Malformed>, track: &Track) {
        let Offered { name, aliases, version, ttl, body } = match offered {
            Ok(offered) => offered,
            Err(Malformed { name, reason }) => {
                self.nameless |= name.is_none();
                let name = name.unwrap_or_default();
                if !name.is_empty() {
                    self.see(&name);
                }
                return self.faults.push(Rejection { name, reason });
            }
        };
        self.see(&name);
        let held = track.get(&name);
        if let Some(body) = body {
            // What was not asked for is ignored.
            if track.wanted.wants(&name, &aliases) {
                let digest = digest(&body);
                let unchanged = held.is_some_and(|held| held.digest == digest);
                self.resources.push(Received {
                    name,
                    aliases,
                    version,
                    body,
                    unchanged,
                    ttl,
                    digest,
                });
            }
        } else if held.is_some_and(|held| held.version == version || track.version() == version) {
            self.lifetimes.push((name, ttl));
        } else if !aliases.is_empty() {
            self.removed.extend(aliases);
            self.removed.push(name);
        } else if track.wanted.wants(&name, &aliases) {
            let reason =
                format!("neither a resource nor a heartbeat of the version held: {version:?}");
            self.faults.push(Rejection { name, reason });
        }
    }

    fn remove(&mut self, name: String) {
        self.see(&name);
        self.removed.push(name);
    }

    /// Takes what the server says of resources it cannot give.
    fn errors(&mut self, errors: Vec<ResourceError>, track: &Track) {
        for ResourceError { resource_name, error_detail } in errors {
            let name = resource_name.unwrap_or_default().name;
            let status = error_detail.unwrap_or_default();
            if !self.seen.insert(name.clone()) || !track.wanted.wants(&name, &[]) {
                continue;
            }
            if status.code == NOT_FOUND {
                self.removed.push(name);
            } else {
                self.withheld.push(Rejection { name, reason: status.message });
            }
        }
    }

    fn see(&mut self, name: &str) {
        if !self.seen.insert(name.to_owned()) {
            self.twice.get_or_insert_with(|| name.to_owned());
        }
    }

    /// Whether a resource that is not in the response is in none: not so if there are only heartbeats.
    fn is_complete(&self) -> bool {
        let only_renewed = self.resources.is_empty() && self.faults.is_empty();
        !(self.nameless || only_renewed && !self.lifetimes.is_empty())
    }

    fn update(self, kind: ResourceType, version: String, nonce: String, stream: u64) -> Update {
        let Self { mut resources, mut removed, mut faults, mut lifetimes, withheld, .. } = self;
        // Nobody can tell which of the two is meant ("Duplicate Resource Names").
        if let Some(name) = self.twice {
            (resources, removed, lifetimes) = Default::default();
            let reason = format!("duplicate name {name} in a response");
            faults = vec![Rejection { name: String::new(), reason }];
        }
        Update { kind, version, resources, removed, withheld, faults, lifetimes, nonce, stream }
    }
}
