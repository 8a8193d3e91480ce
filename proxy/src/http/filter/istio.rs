//! Istio's own filters: `istio.alpn` says who we are to the sidecars of endpoints, `istio.metadata_exchange` keeps
//! what peers say of themselves from those whom it does not concern.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::passage::Passage;
use crate::config::istio::{AlpnOverrides, PeerMetadata};

/// What a peer says of itself, and its name.
const PEER: [HeaderName; 2] = [
    HeaderName::from_static("x-envoy-peer-metadata"),
    HeaderName::from_static("x-envoy-peer-metadata-id"),
];

/// Chooses what is offered to the endpoint of `request` by ALPN, unless the metadata of its cluster forbids it.
pub(super) fn alpn(overrides: &AlpnOverrides, request: &mut Passage<'_>) {
    let clusters = &request.stream.served.snapshot.clusters;
    let Some(spec) = request.cluster().and_then(|name| clusters.get(name)) else { return };
    if spec.config.keeps_alpn {
        return;
    }
    let offer = overrides.of(spec.config.http.protocol, request.head().version);
    request.wishes.alpn = offer.map(Arc::clone);
}

/// Takes what the client says of itself out of a request.
pub(super) fn strip_request(config: PeerMetadata, request: &mut Passage<'_>) {
    let headers = &request.head().headers;
    if config.strips_requests && PEER.iter().any(|name| headers.contains_key(name)) {
        strip(&mut request.head_mut().headers);
    }
}

/// Takes what the endpoint says of itself out of a response.
pub(super) fn strip_response(config: PeerMetadata, headers: &mut HeaderMap) {
    if config.strips_responses {
        strip(headers);
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in PEER {
        headers.remove(name);
    }
}
