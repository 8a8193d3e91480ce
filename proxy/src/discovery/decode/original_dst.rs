//! Clusters whose endpoints are named by requests (ORIGINAL_DST).

use std::time::Duration;

use http::HeaderName;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy, OriginalDstLbConfig};

use super::address::port_number;
use super::errors::{At, Result, refuse};
use super::value::{enumeration, header_name, positive_duration};
use crate::config::cluster::OriginalDst;

/// Envoy's default.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
/// The header that names the endpoint unless `http_header_name` says otherwise.
const HEADER: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");

/// A cluster of type ORIGINAL_DST that says `fields` of its endpoints.
pub(super) fn cluster(proto: &Cluster, fields: OriginalDst) -> Result<OriginalDst> {
    let policy: LbPolicy = enumeration("lb_policy", proto.lb_policy)?;
    if policy != LbPolicy::ClusterProvided {
        let policy = policy.as_str_name();
        return refuse(
            "lb_policy",
            format!(
                "{policy} is not valid for type ORIGINAL_DST: only CLUSTER_PROVIDED is allowed"
            ),
        );
    }
    no_other_policy(proto)?;
    if proto.load_assignment.is_some() {
        return refuse("load_assignment", "has no place in a cluster of type ORIGINAL_DST");
    }
    Ok(fields)
}

/// Refuses a policy that would choose among endpoints which requests name.
pub(super) fn no_other_policy(proto: &Cluster) -> Result<()> {
    match proto.load_balancing_policy {
        Some(_) => refuse("load_balancing_policy", "has no place beside CLUSTER_PROVIDED"),
        None => Ok(()),
    }
}

/// What a cluster says of endpoints that requests name; of effect in one of type ORIGINAL_DST.
pub(super) fn fields(proto: &Cluster) -> Result<OriginalDst> {
    let default = OriginalDstLbConfig::default();
    let OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override } =
        match &proto.lb_config {
            Some(LbConfig::OriginalDstLbConfig(config)) => config,
            _ => &default,
        };
    let port = upstream_port_override.map(|port| port_number("upstream_port_override", port));
    let port_override = port.transpose().at("original_dst_lb_config")?;
    if !use_http_header && !http_header_name.is_empty() {
        return refuse(
            "original_dst_lb_config.http_header_name",
            "is read only if use_http_header is true",
        );
    }
    let http_header = match http_header_name.as_str() {
        "" => HEADER,
        name => header_name(name).at("original_dst_lb_config.http_header_name")?,
    };
    Ok(OriginalDst {
        http_header: use_http_header.then_some(http_header),
        port_override,
        cleanup_interval: positive_duration("cleanup_interval", proto.cleanup_interval.as_ref())?
            .unwrap_or(CLEANUP_INTERVAL),
    })
}
