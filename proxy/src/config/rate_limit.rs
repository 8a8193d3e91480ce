//! Which limits a request counts against, and how it is described to them (Envoy `config.route.v3.RateLimit`).

use super::format::Format;
use super::matcher::{HeaderMatcher, HeaderRef, QueryParameterMatcher};

/// Envoy `RateLimit`: a request that every action can describe gets one descriptor from it.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// `stage`: only filters of the same stage heed it, 0 to 10.
    pub stage: u32,
    /// `disable_key`; the filter for limits of this process heeds no limit that has one, as in Envoy.
    pub disable_key: Box<str>,
    /// `actions`, in their order; at least one.
    pub actions: Vec<Action>,
    /// `limit.dynamic_metadata`: where a limit in place of the service's own is.
    pub limit: Option<MetadataKey>,
    /// `hits_addend`: how many hits a request is; none means 1, or what its filter says.
    pub hits_addend: Option<HitsAddend>,
    /// `apply_on_stream_done`: whether the service is told only when the request is over.
    pub apply_on_stream_done: bool,
}

/// What one request counts for.
#[derive(Debug, Clone, PartialEq)]
pub enum HitsAddend {
    /// `number`, at most 1,000,000,000
    Number(u64),
    /// `format`: a number that the request says; without one it gets no descriptor.
    Format(Format),
}

/// A place within metadata (Envoy `type.metadata.v3.MetadataKey`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataKey {
    /// `key`: the namespace.
    pub namespace: Box<str>,
    /// `path`: keys from the outside in; at least one.
    pub path: Vec<Box<str>>,
}

/// Envoy `RateLimit.Action`: one entry of a descriptor.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `source_cluster`: the cluster that this proxy belongs to.
    SourceCluster,
    /// `destination_cluster`: the cluster that the request is forwarded to.
    DestinationCluster,
    /// `request_headers`
    RequestHeader {
        /// `header_name`
        header: HeaderRef,
        /// `descriptor_key`
        key: Box<str>,
        /// `skip_if_absent`: whether the others describe a request that lacks it.
        skip_if_absent: bool,
    },
    /// `query_parameters`
    QueryParameter {
        /// `query_parameter_name`
        name: Box<str>,
        /// `descriptor_key`
        key: Box<str>,
        /// `skip_if_absent`: whether the others describe a request that lacks it.
        skip_if_absent: bool,
    },
    /// `remote_address`: the client's, as trusted headers say.
    RemoteAddress,
    /// `masked_remote_address`: the block of this many leading bits around it.
    MaskedRemoteAddress {
        /// `v4_prefix_mask_len`, at most 32
        v4: u8,
        /// `v6_prefix_mask_len`, at most 128
        v6: u8,
    },
    /// `generic_key`
    GenericKey {
        /// `descriptor_key`
        key: Box<str>,
        /// `descriptor_value`
        value: Box<str>,
    },
    /// `header_value_match`
    HeaderValueMatch {
        /// `descriptor_key`
        key: Box<str>,
        /// `descriptor_value`
        value: Box<str>,
        /// `expect_match`: whether all have to match, or not all of them.
        expect_match: bool,
        /// `headers`
        headers: Vec<HeaderMatcher>,
    },
    /// `query_parameter_value_match`
    QueryParameterValueMatch {
        /// `descriptor_key`
        key: Box<str>,
        /// `descriptor_value`
        value: Box<str>,
        /// `expect_match`: whether all have to match, or not all of them.
        expect_match: bool,
        /// `query_parameters`
        parameters: Vec<QueryParameterMatcher>,
    },
    /// `metadata`, and `dynamic_metadata`
    Metadata {
        /// `descriptor_key`
        key: Box<str>,
        /// `metadata_key`
        from: MetadataKey,
        /// `source`
        source: MetadataSource,
        /// `default_value`: in place of an absent or empty text; may be empty.
        default: Box<str>,
        /// `skip_if_absent`: whether the others describe a request that lacks it.
        skip_if_absent: bool,
    },
}

/// Whose metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataSource {
    /// `DYNAMIC`: the request's, as filters have set it.
    Dynamic,
    /// `ROUTE_ENTRY`: the route's.
    Route,
}

/// Whether a virtual host's limits count beside those of its route (Envoy `VhRateLimitsOptions`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VirtualHostLimits {
    /// `OVERRIDE`: only if the route has none.
    #[default]
    Override,
    /// `INCLUDE`: also.
    Include,
    /// `IGNORE`: never.
    Ignore,
}
