//! The part of Kubernetes' kinds that a mesh needs. Their other fields are the API server's to check.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A service: a name, ports, and which pods stand behind it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels that its pods have; empty if endpoints are given otherwise.
    pub selector: BTreeMap<String, String>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means the first.
    pub r#type: String,
    /// Its address; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Its addresses, one per address family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Further addresses that it is reached at.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// The DNS name behind a service of type `ExternalName`.
    pub external_name: String,
    /// Whether endpoints that are not ready are used.
    pub publish_not_ready_addresses: bool,
    /// Which endpoints are preferred: `PreferClose`, `PreferSameZone` or `PreferSameNode`; empty for any.
    pub traffic_distribution: String,
}

/// A port of a service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name; a prefix up to `-` may tell the protocol.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; empty means the first.
    pub protocol: String,
    /// What clients connect to.
    pub port: u16,
    /// What pods listen on; none for the same number.
    pub target_port: Option<IntOrString>,
    /// The protocol above TCP.
    pub app_protocol: Option<String>,
    /// Where nodes accept connections.
    pub node_port: Option<u16>,
}

/// A number, or the name of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntOrString {
    /// The number.
    Int(u16),
    /// The name.
    String(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrString::Int(number) => number.fmt(f),
            IntOrString::String(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(name) => Ok(match name.parse() {
                Ok(number) => Self::Int(number),
                Err(_) => Self::String(name),
            }),
            serde_json::Value::Number(number) => number
                .as_u64()
                .and_then(|number| u16::try_from(number).ok())
                .map(Self::Int)
                .ok_or_else(|| de::Error::custom(format!("Invalid value: {number}: no port"))),
            other => Err(de::Error::custom(format!("Invalid value: {other}: no port"))),
        }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Its containers.
    pub containers: Vec<Container>,
    /// Those that run before, or, with `restartPolicy: Always`, beside them.
    pub init_containers: Vec<Container>,
    /// Its identity; empty means `default`.
    pub service_account_name: String,
    /// The node it runs on.
    pub node_name: String,
    /// Whether it has the node's network.
    pub host_network: bool,
    /// For all containers that say nothing else.
    pub security_context: SecurityContext,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The ports it listens on.
    pub ports: Vec<ContainerPort>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// Whom it runs as.
    pub security_context: SecurityContext,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: String,
}

/// A port of a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// What a service's `targetPort` may name.
    pub name: String,
    /// The number.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`; empty means the first.
    pub protocol: String,
}

/// A variable of a container's environment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value; empty also if it comes from elsewhere.
    pub value: String,
}

/// Whom a process runs as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// The user's number.
    pub run_as_user: Option<i64>,
}

/// `Deployment`, `StatefulSet`, `DaemonSet`, `ReplicaSet` and `Job`: many pods from one template.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodController {
    /// How many pods; none means one, or one per node.
    pub replicas: Option<u32>,
    /// What each pod is made from.
    pub template: PodTemplate,
}

/// What a pod is made from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    /// Its labels and annotations.
    pub metadata: TemplateMetadata,
    /// The pod.
    pub spec: Pod,
}

/// Labels and annotations of pods to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TemplateMetadata {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Addresses behind a service, in the old form.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Addresses and the ports they all have.
    pub subsets: Vec<EndpointSubset>,
}

/// Addresses that have the same ports.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Ready ones.
    pub addresses: Vec<EndpointAddress>,
    /// Those that are not ready.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// The ports.
    pub ports: Vec<EndpointPort>,
}

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// The address.
    pub ip: String,
    /// The pod that has it.
    pub target_ref: Option<TargetRef>,
    /// The node it is on.
    pub node_name: String,
}

/// The object that an address belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Usually `Pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// Addresses behind a service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports that all of them have.
    pub ports: Vec<EndpointPort>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses, all for the same endpoint.
    pub addresses: Vec<String>,
    /// What it is ready for.
    pub conditions: EndpointConditions,
    /// The pod that it is.
    pub target_ref: Option<TargetRef>,
    /// The node it is on.
    pub node_name: String,
    /// The zone it is in.
    pub zone: String,
}

/// What an endpoint is ready for; unknown counts as ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes new requests.
    pub ready: Option<bool>,
    /// Answers requests, perhaps while it ends.
    pub serving: Option<bool>,
    /// Is about to end.
    pub terminating: Option<bool>,
}

/// A port of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The service port's name.
    pub name: String,
    /// The number.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`; empty means the first.
    pub protocol: String,
    /// The protocol above TCP.
    pub app_protocol: Option<String>,
}

/// Small values by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    /// The values.
    pub data: BTreeMap<String, String>,
}

/// Confidential values by name.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// For instance `kubernetes.io/tls`.
    pub r#type: String,
    /// In base64.
    pub data: BTreeMap<String, String>,
    /// As they are.
    pub string_data: BTreeMap<String, String>,
}

impl fmt::Debug for Secret {
    /// Tells which values there are, not what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret").field("type", &self.r#type).field("keys", &keys).finish()
    }
}

/// A kind that someone added to the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CustomResourceDefinition {
    /// Its group.
    pub group: String,
    /// Its names.
    pub names: CustomResourceNames,
}

/// Names of an added kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CustomResourceNames {
    /// As in `kind:`.
    pub kind: String,
    /// As in paths.
    pub plural: String,
}

/// Webhooks that check or change objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WebhookConfiguration {
    /// The webhooks.
    pub webhooks: Vec<Webhook>,
}

/// A webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub client_config: WebhookClientConfig,
}

/// Where a webhook is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WebhookClientConfig {
    /// Outside of the cluster.
    pub url: Option<String>,
    /// Inside of it.
    pub service: Option<WebhookService>,
}

/// The service that a webhook is behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WebhookService {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// A kind of which only names, labels and annotations matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Bare {}
