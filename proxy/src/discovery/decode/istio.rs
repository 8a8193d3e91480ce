//! Istio's own filters.

use std::sync::Arc;

use prost_types::Any;
use prost_types::value::Kind;
use xds::envoy::config::core::v3::Metadata;
use xds::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use xds::envoy::tcp::metadataexchange::config::MetadataExchange;
use xds::io::istio::http::peer_metadata::Config;
use xds::io::istio::http::peer_metadata::config::discovery_method::MethodSpecifier;
use xds::io::istio::http::peer_metadata::config::{DiscoveryMethod, IstioHeaders};
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig;
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::filter_config::{
    AlpnOverride, Protocol,
};
use xds::stats::PluginConfig;

use super::errors::{At, Result, refuse};
use super::extension::unpack;
use super::value::enumeration;
use crate::config::istio::{Alpn, AlpnOverrides, PeerMetadata};

/// The protocol that announces Istio's exchange of metadata at the beginning of a TCP connection. This proxy takes no
/// part in it: were it chosen, the other side would wait for it, or send what is taken for the client's words.
pub(super) const METADATA_EXCHANGE: &str = "istio-peer-exchange";

/// Whether this is `istio.stats`: its metrics are not counted by this version.
pub(super) fn is_stats(any: &Any) -> Result<bool> {
    let Some(proto) = unpack::<PluginConfig>(any)? else { return Ok(false) };
    let PluginConfig {
        disable_host_header_fallback: _,
        tcp_reporting_duration: _,
        metrics: _,
        definitions: _,
        reporter: _,
        rescoping_duration: _,
        scope_grace_period_duration: _,
    } = proto;
    Ok(true)
}

/// Whether this is `istio.metadata_exchange` of TCP, in which this proxy takes no part.
pub(super) fn is_metadata_exchange(any: &Any) -> Result<bool> {
    let Some(proto) = unpack::<MetadataExchange>(any)? else { return Ok(false) };
    let MetadataExchange { protocol: _, enable_discovery: _, additional_labels: _ } = proto;
    Ok(true)
}

/// Whether this is `mongo_proxy`: it only counts what it sees, so that its connections are plain TCP.
pub(super) fn is_mongo_proxy(any: &Any) -> Result<bool> {
    let Some(proto) = unpack::<MongoProxy>(any)? else { return Ok(false) };
    let MongoProxy { stat_prefix: _, access_log: _, emit_dynamic_metadata: _, commands: _ } = proto;
    Ok(true)
}

/// Whether the metadata of a cluster asks `istio.alpn` to leave its ALPN alone.
pub(super) fn keeps_alpn(metadata: &Metadata) -> bool {
    let istio = metadata.filter_metadata.get("istio");
    let value = istio.and_then(|it| it.fields.get("alpn_override")?.kind.as_ref());
    value.is_some_and(|kind| *kind == Kind::StringValue("false".to_owned()))
}

/// `istio.alpn`
pub(super) fn alpn(proto: &FilterConfig) -> Result<AlpnOverrides> {
    let FilterConfig { alpn_override } = proto;
    let mut overrides = AlpnOverrides::default();
    for (index, one) in alpn_override.iter().enumerate() {
        let AlpnOverride { upstream_protocol, alpn_override } = one;
        let path = format!("alpn_override[{index}]");
        let offer: Alpn = alpn_override.iter().map(|it| it.as_str().into()).collect();
        let offer = (!offer.is_empty()).then(|| Arc::clone(&offer));
        match enumeration("upstream_protocol", *upstream_protocol).at(&path)? {
            Protocol::Http10 => overrides.http10 = offer,
            Protocol::Http11 => overrides.http11 = offer,
            Protocol::Http2 => overrides.http2 = offer,
        }
        if alpn_override.iter().any(|it| it == METADATA_EXCHANGE) {
            let reason = "Istio's exchange of metadata is not supported by this version";
            return refuse(&path, reason);
        }
    }
    Ok(overrides)
}

/// `istio.metadata_exchange` of HTTP
pub(super) fn peer_metadata(proto: &Config) -> PeerMetadata {
    let Config {
        downstream_discovery,
        upstream_discovery,
        downstream_propagation: _,
        upstream_propagation: _,
        shared_with_upstream: _,
        additional_labels: _,
    } = proto;
    PeerMetadata {
        strips_requests: downstream_discovery.iter().any(by_headers),
        strips_responses: upstream_discovery.iter().any(by_headers),
    }
}

fn by_headers(method: &DiscoveryMethod) -> bool {
    let DiscoveryMethod { method_specifier } = method;
    match method_specifier {
        Some(MethodSpecifier::IstioHeaders(IstioHeaders { skip_external_clusters: _ })) => true,
        Some(MethodSpecifier::Baggage(_) | MethodSpecifier::WorkloadDiscovery(_)) | None => false,
    }
}
