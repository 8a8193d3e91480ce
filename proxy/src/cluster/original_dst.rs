//! The endpoint that a request or connection names for a cluster of type ORIGINAL_DST: in a header, or by the
//! address it was made to before it was redirected here.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{DynamicHost, LocalCluster};
use crate::config::cluster::Discovery;

impl LocalCluster {
    /// The endpoint named by the header that `header` looks up, or else the original destination `restored`.
    /// None if nothing names one, or if the cluster's endpoints are not found so.
    pub fn original_dst<'a>(
        &self,
        header: impl FnOnce(&HeaderName) -> Option<&'a HeaderValue>,
        restored: Option<SocketAddr>,
    ) -> Option<DynamicHost> {
        let Discovery::OriginalDst(config) = &self.spec().config.discovery else { return None };
        let value = config.http_header.as_ref().and_then(header);
        let named = value.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if value.is_some() && named.is_none() {
            self.stats.original_dst_host_invalid.inc();
        }
        let mut address: SocketAddr = named.or(restored)?;
        if let Some(port) = config.port_override {
            address.set_port(port);
        }
        Some(DynamicHost {
            address: address.into(),
            additional_addresses: Arc::default(),
            hostname: Arc::default(),
        })
    }
}
