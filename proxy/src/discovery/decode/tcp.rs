//! The TCP proxy.

use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use super::errors::{Result, required};
use super::value::name;
use crate::config::tcp;

/// A TCP proxy.
pub(super) fn tcp_proxy(proto: &TcpProxy) -> Result<tcp::TcpProxy> {
    let TcpProxy { stat_prefix, cluster_specifier } = proto;
    let ClusterSpecifier::Cluster(cluster) = required("cluster", cluster_specifier)?;
    Ok(tcp::TcpProxy {
        stat_prefix: name("stat_prefix", stat_prefix)?,
        cluster: name("cluster", cluster)?,
        access_logs: Vec::new(),
    })
}
