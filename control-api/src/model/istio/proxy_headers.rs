//! What proxies add to requests and answers, and what stands before gateways: parts of a proxy's own settings.

use serde::Deserialize;

/// What stands before a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTopology {
    /// How many proxies before it are believed what they say of clients.
    pub num_trusted_proxies: u32,
    pub forward_client_cert_details: ForwardClientCertDetails,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: Option<AcceptedProxyProtocol>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct AcceptedProxyProtocol {}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCertDetails {
    #[default]
    Undefined,
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Headers that proxies write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyHeaders {
    pub forwarded_client_cert: ForwardClientCertDetails,
    pub set_current_client_cert_details: Option<ClientCertDetails>,
    pub request_id: Switch,
    pub server: Server,
    pub attempt_count: Switch,
    pub envoy_debug_headers: Switch,
    pub x_forwarded_host: Switch,
    pub x_forwarded_port: Switch,
}

/// Something that is on, or off, unless it is said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Switch {
    pub disabled: bool,
    pub enabled: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    pub disabled: bool,
    pub value: String,
}

/// What of a client's certificate is told to the workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientCertDetails {
    pub subject: Option<bool>,
    pub cert: Option<bool>,
    pub chain: Option<bool>,
    pub dns: Option<bool>,
    pub uri: Option<bool>,
}
