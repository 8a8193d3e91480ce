//! `MeshConfig`: what holds for the whole mesh, with Istio's defaults.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::{LocalityLoadBalancerSetting, TcpKeepalive};
use super::extension_provider::ExtensionProvider;
use super::proxy_headers::{GatewayTopology, ProxyHeaders};
use super::telemetry::CustomTag;
use crate::model::duration::Duration;

/// The part of Istio's mesh-wide settings that is read; the rest belongs to istiod's installation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    pub root_namespace: String,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    pub enable_auto_mtls: bool,
    pub connect_timeout: Duration,
    pub protocol_detection_timeout: Duration,
    pub dns_refresh_rate: Duration,
    pub access_log_file: String,
    pub access_log_format: String,
    pub access_log_encoding: AccessLogEncoding,
    pub disable_envoy_listener_log: bool,
    pub enable_tracing: bool,
    pub mesh_mtls: Option<TlsConfig>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub h2_upgrade_policy: MeshH2UpgradePolicy,
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    pub path_normalization: PathNormalization,
    pub default_config: DefaultConfig,
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    pub extension_providers: Vec<ExtensionProvider>,
    pub default_providers: DefaultProviders,
    pub default_service_export_to: Vec<String>,
    pub default_virtual_service_export_to: Vec<String>,
    pub default_destination_rule_export_to: Vec<String>,
    pub ingress_class: String,
    pub ingress_service: String,
    pub ingress_selector: String,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            enable_auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::default(),
            dns_refresh_rate: Duration::from_secs(60),
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::default(),
            disable_envoy_listener_log: false,
            enable_tracing: false,
            mesh_mtls: None,
            tcp_keepalive: None,
            h2_upgrade_policy: MeshH2UpgradePolicy::default(),
            locality_lb_setting: None,
            path_normalization: PathNormalization::default(),
            default_config: DefaultConfig::default(),
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            extension_providers: Vec::new(),
            default_providers: DefaultProviders::default(),
            default_service_export_to: vec!["*".into()],
            default_virtual_service_export_to: vec!["*".into()],
            default_destination_rule_export_to: vec!["*".into()],
            ingress_class: "istio".into(),
            ingress_service: "istio-ingressgateway".into(),
            ingress_selector: "ingressgateway".into(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultConfig {
    pub discovery_address: String,
    pub proxy_metadata: BTreeMap<String, String>,
    pub tracing: Option<ProxyTracing>,
    pub gateway_topology: Option<GatewayTopology>,
    pub proxy_headers: Option<ProxyHeaders>,
}

/// How proxies trace where no `Telemetry` says anything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyTracing {
    pub sampling: Option<f64>,
    pub max_path_tag_length: u32,
    pub custom_tags: BTreeMap<String, CustomTag>,
    pub enable_istio_tags: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsConfig {
    /// `TLS_AUTO`, `TLSV1_2` or `TLSV1_3`.
    pub min_protocol_version: String,
    pub cipher_suites: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MeshH2UpgradePolicy {
    #[default]
    DoNotUpgrade,
    Upgrade,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    pub normalization: Normalization,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    pub mode: OutboundMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    RegistryOnly,
    #[default]
    AllowAny,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    pub tracing: Vec<String>,
    pub metrics: Vec<String>,
    pub access_logging: Vec<String>,
}

/// Networks of a mesh that spans several, and how endpoints are assigned to them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshNetworks {
    pub networks: BTreeMap<String, Network>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    pub endpoints: Vec<NetworkEndpoints>,
    pub gateways: Vec<NetworkGateway>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkEndpoints {
    FromCidr(String),
    FromRegistry(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkGateway {
    pub registry_service_name: String,
    pub address: String,
    pub port: u32,
    pub locality: String,
}
