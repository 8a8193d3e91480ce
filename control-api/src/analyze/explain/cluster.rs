//! Where a cluster leads: the rules for it, its TLS, and its endpoints.

use std::sync::Arc;

use prost::Message;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use xds::envoy::config::core::v3::TransportSocket;
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use xds::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::report::{Source, Step};
use super::workload::Workload;
use super::{chain, origin};
use crate::model::Mesh;
use crate::model::destination_rules::{Asking, Side};
use crate::model::object::Object;
use crate::translate::proxy::Proxy;
use crate::translate::resources::Resources;
use crate::translate::service::Service;

/// How many endpoints are listed.
const LISTED: usize = 10;

/// An endpoint that a connection may be made to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) port: u32,
    /// Whether the mesh's mTLS is spoken.
    pub(super) mtls: bool,
    /// The name that TLS asks for.
    pub(super) server_name: String,
}

/// TLS as a cluster speaks it.
enum Tls {
    Plain,
    /// The mesh's, with endpoints that accept it.
    Auto,
    Mesh,
    /// By a rule's own settings.
    Own,
}

/// What is said of a cluster, and its endpoints; none if there is no such cluster.
pub(super) fn explain(
    mesh: &Mesh,
    proxy: &Proxy,
    told: &Resources,
    services: &[Arc<Service>],
    name: &str,
    weight: Option<u32>,
) -> (Step, Option<Vec<Target>>) {
    let share = weight.map(|it| format!(", weight {it}")).unwrap_or_default();
    let mut step = Step::new("cluster", format!("{name}{share}"));
    let Some(cluster) = told.clusters.iter().find(|it| it.name == name) else {
        return (step.note("there is no such cluster: 503"), None);
    };
    let (tls, server_name) = tls(cluster);
    step.notes.push(match tls {
        Tls::Plain => "no TLS".to_owned(),
        Tls::Auto => "mTLS with endpoints that accept it".to_owned(),
        Tls::Mesh => "mTLS with all endpoints".to_owned(),
        Tls::Own => "TLS by the rule's own settings".to_owned(),
    });
    let kind = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(*kind).unwrap_or_default().as_str_name()
        }
        _ => "resolved as requests ask for it",
    };
    step.notes.push(format!("{kind}, {}", cluster.lb_policy().as_str_name()));
    step.from = rules(mesh, proxy, services, name);
    let assigned = cluster
        .load_assignment
        .as_ref()
        .or_else(|| told.endpoints.iter().find(|it| it.cluster_name == name));
    let targets: Vec<Target> = endpoints(assigned)
        .filter_map(|it| {
            let (address, port) = chain::socket(place(it))?;
            let accepts = it
                .metadata
                .as_ref()
                .is_some_and(|it| it.filter_metadata.contains_key("envoy.transport_socket_match"));
            let mtls = matches!(tls, Tls::Mesh) || (matches!(tls, Tls::Auto) && accepts);
            Some(Target { address, port, mtls, server_name: server_name.clone() })
        })
        .collect();
    for target in targets.iter().take(LISTED) {
        let Target { address, port, mtls, .. } = target;
        let by = Workload::at(mesh, address).map(|it| it.full_name()).unwrap_or_default();
        let how = if *mtls { "mTLS" } else { "" };
        step.notes.push(format!("{address}:{port} {by} {how}").trim_end().to_owned());
    }
    if targets.len() > LISTED {
        step.notes.push(format!("and {} more", targets.len() - LISTED));
    }
    if assigned.is_some() && targets.is_empty() {
        step.notes.push("no endpoint: 503".to_owned());
    }
    (step, Some(targets).filter(|it| assigned.is_none() || !it.is_empty()))
}

fn endpoints(assigned: Option<&ClusterLoadAssignment>) -> impl Iterator<Item = &LbEndpoint> {
    assigned.into_iter().flat_map(|it| &it.endpoints).flat_map(|it| &it.lb_endpoints)
}

fn place(endpoint: &LbEndpoint) -> Option<&xds::envoy::config::core::v3::Address> {
    let HostIdentifier::Endpoint(it) = endpoint.host_identifier.as_ref()?;
    it.address.as_ref()
}

fn tls(cluster: &Cluster) -> (Tls, String) {
    let of = |socket: &TransportSocket| {
        let Some(ConfigType::TypedConfig(any)) = &socket.config_type else { return None };
        let is_tls = any.type_url.ends_with(".UpstreamTlsContext");
        is_tls.then(|| UpstreamTlsContext::decode(&*any.value).ok())?
    };
    let sockets =
        cluster.transport_socket_matches.iter().filter_map(|it| it.transport_socket.as_ref());
    if let Some(context) = sockets.filter_map(of).next() {
        return (Tls::Auto, context.sni);
    }
    let Some(context) = cluster.transport_socket.as_ref().and_then(of) else {
        return (Tls::Plain, String::new());
    };
    let settings = context.common_tls_context.as_ref();
    let secrets = settings.into_iter().flat_map(|it| &it.tls_certificate_sds_secret_configs);
    let is_mesh = secrets.into_iter().any(|it| it.name == "default");
    (if is_mesh { Tls::Mesh } else { Tls::Own }, context.sni)
}

/// The destination rules for `outbound|PORT|SUBSET|HOST`.
fn rules(mesh: &Mesh, proxy: &Proxy, services: &[Arc<Service>], name: &str) -> Vec<Source> {
    let [_, _, subset, host] = name.splitn(4, '|').collect::<Vec<_>>()[..] else {
        return Vec::new();
    };
    let Some(service) = services.iter().find(|it| it.host == host) else { return Vec::new() };
    let asking = Asking { namespace: &proxy.namespace, labels: &proxy.labels, side: Side::Client };
    let root = &mesh.config.root_namespace;
    let found = mesh.destination_rules().find(&asking, host, service.namespace(), root);
    let of = |object: &std::sync::Arc<Object>| origin::source(object, &path(object, subset));
    found.into_iter().flat_map(|it| &it.from).map(of).collect()
}

/// The subset in a rule, if it is this one that has it.
fn path(rule: &Object, subset: &str) -> String {
    let crate::model::kind::Spec::DestinationRule(spec) = &rule.spec else { return String::new() };
    let index = spec.subsets.iter().position(|it| !subset.is_empty() && it.name == subset);
    index.map(|it| format!("spec.subsets[{it}]")).unwrap_or_default()
}
