//! Istio's own HTTP filters as configured.

use std::sync::Arc;

use super::cluster::UpstreamProtocol;

/// Protocols to offer by ALPN, best first.
pub type Alpn = Arc<[Box<str>]>;

/// `istio.alpn` (Istio `alpn.v2alpha1.FilterConfig`): what is offered to endpoints, by what is spoken to them. It tells
/// the sidecar there that the caller is one of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlpnOverrides {
    /// `HTTP10`
    pub http10: Option<Alpn>,
    /// `HTTP11`
    pub http11: Option<Alpn>,
    /// `HTTP2`
    pub http2: Option<Alpn>,
}

impl AlpnOverrides {
    /// What is offered to endpoints of a cluster that speak `protocol`, for a request of this version.
    pub fn of(&self, protocol: UpstreamProtocol, downstream: http::Version) -> Option<&Alpn> {
        let follows = protocol == UpstreamProtocol::Downstream;
        let offer = match protocol {
            UpstreamProtocol::Http1 => &self.http11,
            // The better of the two that ALPN may choose.
            UpstreamProtocol::Http2 | UpstreamProtocol::Alpn => &self.http2,
            UpstreamProtocol::Downstream if downstream == http::Version::HTTP_2 => &self.http2,
            UpstreamProtocol::Downstream => &self.http11,
        };
        let offer =
            if follows && downstream == http::Version::HTTP_10 { &self.http10 } else { offer };
        offer.as_ref()
    }
}

/// `istio.metadata_exchange` of HTTP (Istio `peer_metadata.Config`), as far as it concerns others than Istio's
/// metrics: what peers say of themselves in headers is not passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// `downstream_discovery[].istio_headers`: whether requests lose these headers.
    pub strips_requests: bool,
    /// `upstream_discovery[].istio_headers`: whether responses do.
    pub strips_responses: bool,
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    #[test]
    fn the_offer_is_that_of_the_upstream_protocol() {
        let alpn = |name: &str| Some(Alpn::from([name.into()]));
        let overrides = AlpnOverrides { http10: alpn("0"), http11: alpn("1"), http2: alpn("2") };
        let of = |protocol, version| overrides.of(protocol, version).unwrap()[0].to_string();
        assert_eq!(of(UpstreamProtocol::Http1, Version::HTTP_2), "1");
        assert_eq!(of(UpstreamProtocol::Http2, Version::HTTP_11), "2");
        assert_eq!(of(UpstreamProtocol::Alpn, Version::HTTP_11), "2");
        assert_eq!(of(UpstreamProtocol::Downstream, Version::HTTP_2), "2");
        assert_eq!(of(UpstreamProtocol::Downstream, Version::HTTP_11), "1");
        assert_eq!(of(UpstreamProtocol::Downstream, Version::HTTP_10), "0");
        assert_eq!(AlpnOverrides::default().of(UpstreamProtocol::Http1, Version::HTTP_11), None);
    }
}
