//! A proxy as its node tells of it: what it is, where it is, and which workload it stands for.

use std::borrow::Cow;

use prost_types::Struct;
use prost_types::value::Kind;
use xds::envoy::config::core::v3::{Locality, Node};

use super::values;
use crate::model::Mesh;
use crate::model::istio::mesh_config::DefaultConfig;
use crate::model::workloads::Labels;

/// Where connections of the workload are redirected to.
pub const OUTBOUND_PORT: u32 = 15001;
/// Where connections to the workload are redirected to.
pub const INBOUND_PORT: u32 = 15006;

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It stands beside one workload.
    Sidecar,
    /// It is a gateway of the mesh.
    Router,
}

/// How connections come to a sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Interception {
    /// They are redirected to it.
    #[default]
    Redirect,
    /// The same, and it sees and shows the client's address.
    Tproxy,
    /// They are not: it listens on the ports themselves.
    None,
}

/// A proxy that asks for its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// What it is for.
    pub role: Role,
    /// Its pod's name, or another name that tells it from others of its namespace.
    pub name: String,
    /// Where its workload is, and where its policies count.
    pub namespace: String,
    /// The addresses that its workload is reached at, the first being the main one.
    pub addresses: Vec<String>,
    /// Its workload's labels.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Its workload's service account; empty if it does not say.
    pub service_account: String,
    /// What it is called among those that do the same: the node's `cluster`.
    pub cluster: String,
    /// The mesh it says it is in; empty if it does not say.
    pub mesh_id: String,
    /// The Kubernetes cluster it is in; empty if it does not say.
    pub cluster_id: String,
    /// How connections of its workload come to it.
    pub interception: Interception,
    /// Whether it is built with Istio's own filters (`istio.stats`, `istio.alpn`).
    pub knows_istio_filters: bool,
    /// Settings of its own, in place of the mesh's `defaultConfig`.
    pub proxy_config: Option<DefaultConfig>,
    /// Its DNS domain, `NAMESPACE.svc.cluster.local`.
    pub domain: String,
    /// Ports that it listens on for itself.
    pub reserved_ports: Vec<u32>,
}

/// Why a node is no proxy of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAProxy(String);

impl std::fmt::Display for NotAProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node id {:?} is not TYPE~ADDRESS~NAME.NAMESPACE~DOMAIN", self.0)
    }
}

impl std::error::Error for NotAProxy {}

impl Proxy {
    /// The proxy of this node: `id` is `TYPE~ADDRESS~NAME.NAMESPACE~DOMAIN`, and `metadata` may say more.
    ///
    /// # Errors
    /// The id has another form, or another type than `sidecar` and `router`.
    pub fn of(node: &Node) -> Result<Self, NotAProxy> {
        let wrong = || NotAProxy(node.id.clone());
        let parts: Vec<&str> = node.id.split('~').collect();
        let [role, address, workload, domain] = parts[..] else { return Err(wrong()) };
        let role = match role {
            "sidecar" => Role::Sidecar,
            "router" => Role::Router,
            _ => return Err(wrong()),
        };
        let metadata = node.metadata.as_ref();
        let (name, namespace) = workload.rsplit_once('.').ok_or_else(wrong)?;
        let namespace = text(metadata, "NAMESPACE").unwrap_or(namespace).to_owned();
        let addresses = text(metadata, "INSTANCE_IPS").unwrap_or(address);
        Ok(Self {
            role,
            name: name.to_owned(),
            namespace,
            addresses: addresses.split(',').map(ToOwned::to_owned).collect(),
            labels: labels(metadata),
            locality: node.locality.clone().unwrap_or_default(),
            service_account: text(metadata, "SERVICE_ACCOUNT").unwrap_or_default().to_owned(),
            cluster: node.cluster.clone(),
            mesh_id: text(metadata, "MESH_ID").unwrap_or_default().to_owned(),
            cluster_id: text(metadata, "CLUSTER_ID").unwrap_or_default().to_owned(),
            interception: match text(metadata, "INTERCEPTION_MODE") {
                Some("TPROXY") => Interception::Tproxy,
                Some("NONE") => Interception::None,
                _ => Interception::Redirect,
            },
            // Only Istio's own build, and what stands in for it, say which version they are.
            knows_istio_filters: text(metadata, "ISTIO_VERSION").is_some(),
            proxy_config: metadata
                .and_then(|it| it.fields.get("PROXY_CONFIG"))
                .and_then(|it| serde_json::from_value(values::to_json(it)).ok()),
            domain: domain.to_owned(),
            reserved_ports: reserved_ports(metadata),
        })
    }
}

impl Proxy {
    /// Its settings: those that it tells of, or else its pod's and the mesh's.
    pub fn settings<'a>(&'a self, mesh: &'a Mesh) -> Cow<'a, DefaultConfig> {
        match &self.proxy_config {
            Some(own) => Cow::Borrowed(own),
            None => mesh.proxy_settings(&self.namespace, &self.name, &self.labels),
        }
    }

    /// Whether all of its addresses are of IPv6.
    pub fn is_ipv6_only(&self) -> bool {
        self.addresses.iter().all(|it| it.contains(':'))
    }
}

fn text<'a>(metadata: Option<&'a Struct>, key: &str) -> Option<&'a str> {
    match metadata?.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn reserved_ports(metadata: Option<&Struct>) -> Vec<u32> {
    let own = ["ENVOY_STATUS_PORT", "ENVOY_PROMETHEUS_PORT"];
    let own = own.iter().filter_map(|key| number(metadata?.fields.get(*key)?.kind.as_ref()?));
    own.chain([OUTBOUND_PORT, INBOUND_PORT]).collect()
}

/// A port, as a number or as text.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is no port reserves none: it saturates"
)]
fn number(value: &Kind) -> Option<u32> {
    match value {
        Kind::NumberValue(number) => Some(*number as u32),
        Kind::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

fn labels(metadata: Option<&Struct>) -> Labels {
    let labels = metadata.and_then(|it| it.fields.get("LABELS")).and_then(|it| it.kind.as_ref());
    let Some(Kind::StructValue(labels)) = labels else { return Labels::new() };
    labels
        .fields
        .iter()
        .filter_map(|(key, value)| match value.kind.as_ref()? {
            Kind::StringValue(value) => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.into(), ..Node::default() }
    }

    #[test]
    fn a_node_id_tells_role_address_name_and_namespace() {
        let proxy = Proxy::of(&node("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local")).unwrap();
        assert_eq!((proxy.role, proxy.name.as_str()), (Role::Sidecar, "web-1"));
        assert_eq!(proxy.namespace, "shop");
        assert_eq!(proxy.addresses, ["10.0.0.1"]);
        assert_eq!(Proxy::of(&node("router~1.2.3.4~a.b.c~x")).unwrap().namespace, "c");
    }

    #[test]
    fn other_ids_are_refused() {
        for id in ["", "sidecar", "sidecar~1.1.1.1~web~d", "ztunnel~1.1.1.1~a.b~d", "a~b~c.d~e~f"] {
            assert!(Proxy::of(&node(id)).is_err(), "{id}");
        }
    }
}
