//! Envoy's `Cluster`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{set, socket_address, typed};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster under construction: STATIC and HTTP/1.1 unless said otherwise.
#[derive(Debug, Clone)]
pub struct Cluster {
    value: Value,
}

impl Cluster {
    /// A cluster without endpoints.
    pub fn new(name: &str) -> Self {
        Self {
            value: json!({
                "name": name,
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": {
                    "cluster_name": name,
                    "endpoints": [{"lb_endpoints": []}],
                },
            }),
        }
    }

    /// A cluster whose endpoints the file at `path` brings (EDS).
    pub fn from_file(name: &str, path: &std::path::Path) -> Self {
        Self {
            value: json!({
                "name": name,
                "type": "EDS",
                "connect_timeout": "5s",
                "eds_cluster_config": {
                    "eds_config": {
                        "path_config_source": {"path": path},
                        "resource_api_version": "V3",
                    },
                },
            }),
        }
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(self, at: impl Into<SocketAddr>) -> Self {
        self.lb_endpoint(endpoint(at.into()))
    }

    /// Adds an endpoint with a load-balancing weight.
    #[must_use]
    pub fn weighted_endpoint(self, at: impl Into<SocketAddr>, weight: u32) -> Self {
        let mut endpoint = endpoint(at.into());
        endpoint["load_balancing_weight"] = weight.into();
        self.lb_endpoint(endpoint)
    }

    /// Adds an `LbEndpoint`.
    #[must_use]
    pub fn lb_endpoint(mut self, endpoint: Value) -> Self {
        let endpoints = &mut self.value["load_assignment"]["endpoints"][0]["lb_endpoints"];
        endpoints.as_array_mut().expect("set in new()").push(endpoint);
        self
    }

    /// Speaks HTTP/2 to the endpoints.
    #[must_use]
    pub fn http2(self) -> Self {
        self.http_option("explicit_http_config", json!({"http2_protocol_options": {}}))
    }

    /// Sets a field of the upstream `HttpProtocolOptions`.
    #[must_use]
    pub fn http_option(mut self, path: &str, value: impl Into<Value>) -> Self {
        let options = &mut self.value["typed_extension_protocol_options"][HTTP_OPTIONS];
        if options.is_null() {
            let plain = json!({"explicit_http_config": {"http_protocol_options": {}}});
            *options = typed(HTTP_OPTIONS, plain);
        }
        set(options, path, value.into());
        self
    }

    /// TLS to the endpoints with this `UpstreamTlsContext`.
    #[must_use]
    pub fn tls(self, context: Value) -> Self {
        let config = typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", context);
        let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": config});
        self.with("transport_socket", socket)
    }

    /// A cluster whose endpoints requests name: in the header `x-envoy-original-dst-host`, or by the address
    /// they were made to (ORIGINAL_DST).
    pub fn original_dst(name: &str) -> Self {
        Self {
            value: json!({
                "name": name,
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "connect_timeout": "5s",
                "original_dst_lb_config": {"use_http_header": true},
            }),
        }
    }

    /// Sets the field at a dotted `path` of the cluster.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }
}

/// Envoy's `LbEndpoint` of an address.
fn endpoint(at: SocketAddr) -> Value {
    json!({"endpoint": {"address": socket_address(at)}})
}

impl From<Cluster> for Value {
    fn from(cluster: Cluster) -> Self {
        cluster.value
    }
}
