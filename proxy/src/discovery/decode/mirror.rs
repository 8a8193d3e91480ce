//! Where else requests are sent.

use xds::envoy::config::route::v3::route_action::RequestMirrorPolicy;

use super::errors::{At, Result, each, optional, refuse};
use super::header_mutation::mutation;
use super::matcher::header_ref;
use super::value::runtime_fraction;
use crate::config::mirror::{MirrorHost, MirrorPolicy};
use crate::config::route::ClusterTarget;

/// The `request_mirror_policies` of a route, a virtual host or a table.
pub(super) fn mirrors(protos: &[RequestMirrorPolicy]) -> Result<Vec<MirrorPolicy>> {
    each("request_mirror_policies", protos, mirror)
}

fn mirror(proto: &RequestMirrorPolicy) -> Result<MirrorPolicy> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction: fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = proto;
    let cluster = match (cluster.as_str(), cluster_header.as_str()) {
        ("", "") => return refuse("", "cluster or cluster_header is required"),
        (name, "") => ClusterTarget::Name(name.into()),
        ("", header) => ClusterTarget::Header(header_ref(header).at("cluster_header")?),
        _ => return refuse("", "only one of cluster and cluster_header may be set"),
    };
    let host = match (host_rewrite_literal.as_str(), disable_shadow_host_suffix_append) {
        ("", false) => MirrorHost::Suffixed,
        ("", true) => MirrorHost::Kept,
        (host, _) => MirrorHost::Literal(host.into()),
    };
    Ok(MirrorPolicy {
        cluster,
        fraction: optional("runtime_fraction", fraction, runtime_fraction)?,
        trace_sampled: *trace_sampled,
        host,
        changes: each("request_headers_mutations", request_headers_mutations, mutation)?,
    })
}
