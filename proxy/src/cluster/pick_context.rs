//! The choice of an endpoint, as a request or connection asks for it.

use super::dynamic::DynamicHost;
use super::host::HostId;
use crate::config::subset::{Criteria, MetadataMatch};

/// What a request or connection brings to the choice of its endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    /// Endpoints to pass over, if others can be had.
    pub avoid: &'a [HostId],
    /// Endpoints with such metadata are passed over as well.
    pub omit: &'a [Criteria],
    /// Priorities that get nothing, if others have endpoints to be used.
    pub excluded: &'a [u32],
    /// How often another endpoint is looked for in place of one to avoid (Envoy's
    /// `host_selection_retry_max_attempts`).
    pub attempts: u32,
    /// What the hash policies made of it; none if there are none, or none of them applies.
    pub hash: Option<u64>,
    /// What is wanted of the endpoint's metadata, for clusters with subsets.
    pub metadata_match: Option<&'a MetadataMatch>,
    /// The endpoint it names itself, for clusters that are told their endpoints so.
    pub dynamic: Option<&'a DynamicHost>,
    /// The endpoint its session is at.
    pub override_host: Option<OverrideHost<'a>>,
}

/// An endpoint of the cluster that is taken, if its health allows it, whatever balancing says.
#[derive(Debug, Clone, Copy)]
pub struct OverrideHost<'a> {
    /// Its address, as it prints.
    pub address: &'a str,
    /// Whether no other one is taken in its place.
    pub strict: bool,
}
