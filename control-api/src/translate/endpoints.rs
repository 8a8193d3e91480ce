//! What stands behind a service: pods by `EndpointSlice` or `Endpoints`, and the endpoints of a `ServiceEntry`.

mod selected;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xds::envoy::config::core::v3::address::Address as Kind;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::{
    Address, HealthStatus, Locality, Metadata, Pipe, SocketAddress,
};
use xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::locality::{self, Preference};
use super::peer::Demand;
use super::proxy::Proxy;
use super::service::{Port, Resolution, Service};
use super::values;
use crate::model::Mesh;
use crate::model::istio::destination_rule::{TlsMode, TrafficPolicy};
use crate::model::istio::peer_authentication::Mode;
use crate::model::istio::service_entry::ServiceEntry;
use crate::model::istio::workload_entry::WorkloadEntry;
use crate::model::kind::{Kind as ObjectKind, Spec};
use crate::model::kubernetes::{EndpointPort, EndpointSlice, Endpoints, TargetRef};
use crate::model::object::Object;
use crate::model::workloads::{Labels, selects};
pub(super) use selected::address as address_of_pod;

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says whether a workload has a sidecar.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// An endpoint of one port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// An IP address, a DNS name, or `unix://PATH`.
    pub address: String,
    /// The port; 0 for a path.
    pub port: u32,
    /// The workload's labels.
    pub labels: Labels,
    /// Where it is.
    pub locality: Locality,
    /// Its share of requests; 0 counts as 1.
    pub weight: u32,
    /// The workload's identity, `spiffe://…`; none if it has none.
    pub identity: Option<String>,
    /// Whether it has a sidecar, which knows the mesh's mTLS.
    pub sidecar: bool,
    /// Whether it accepts the mesh's mTLS.
    pub mtls: bool,
    /// Whether it says that it is ready; none if nobody asks it.
    pub ready: Option<bool>,
}

/// The `EndpointSlice`s of a mesh that have addresses, by namespace and service.
pub(super) struct Slices<'m>(HashMap<(&'m str, &'m str), Vec<&'m EndpointSlice>>);

impl<'m> Slices<'m> {
    /// All that name a service.
    pub(super) fn of(mesh: &'m Mesh) -> Self {
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        // Endpoints are addresses, not names.
        for slice in mesh.all::<EndpointSlice>().filter(|it| it.spec.address_type != "FQDN") {
            if let Some(service) = slice.object.metadata.labels.get(SERVICE_NAME) {
                slices.entry((slice.namespace(), service.as_str())).or_default().push(slice.spec);
            }
        }
        Self(slices)
    }
}

/// The endpoints of one port of a service.
pub(super) fn of(
    mesh: &Mesh,
    slices: &Slices<'_>,
    service: &Service,
    port: &Port,
) -> Vec<Endpoint> {
    match &service.object.spec {
        Spec::Service(spec) => {
            let mut found = kubernetes(mesh, slices, service, port);
            found.extend(selected::entries(mesh, service, spec, port));
            found
        }
        Spec::ServiceEntry(entry) => entries(mesh, service, entry, port),
        _ => Vec::new(),
    }
}

/// The identities behind a service, for the names that its certificates may have.
pub fn identities(endpoints: &[Endpoint]) -> Vec<String> {
    let identities: BTreeSet<_> = endpoints.iter().filter_map(|it| it.identity.clone()).collect();
    identities.into_iter().collect()
}

/// A cluster that endpoints are told for.
pub(super) struct Audience<'a> {
    pub mesh: &'a Mesh,
    pub proxy: &'a Proxy,
    pub service: &'a Service,
    /// What holds for the cluster.
    pub policy: Option<&'a TrafficPolicy>,
}

impl Audience<'_> {
    /// The endpoints as a proxy is told of them: those with these labels, by locality.
    pub(super) fn assignment(
        &self,
        cluster: &str,
        endpoints: &[Endpoint],
        subset: &Labels,
    ) -> ClusterLoadAssignment {
        let mut localities: BTreeMap<(&str, &str, &str), LocalityLbEndpoints> = BTreeMap::new();
        let mut labels: BTreeMap<(&str, &str, &str), Vec<&Labels>> = BTreeMap::new();
        let tls = self.policy.and_then(|it| it.tls.as_ref());
        for endpoint in endpoints.iter().filter(|it| selects(subset, &it.labels)) {
            let mtls = match tls.map(|it| it.mode) {
                None => endpoint.mtls,
                Some(mode) => endpoint.sidecar && mode == TlsMode::IstioMutual,
            };
            let Locality { region, zone, sub_zone } = &endpoint.locality;
            let key = (region.as_str(), zone.as_str(), sub_zone.as_str());
            let labels = labels.entry(key).or_default();
            let group = localities.entry(key).or_insert_with(|| LocalityLbEndpoints {
                locality: Some(endpoint.locality.clone()),
                ..LocalityLbEndpoints::default()
            });
            // TLS is handed on as it is only to who accepts the mesh's.
            if !mtls && cluster.starts_with("outbound_.") {
                continue;
            }
            labels.push(&endpoint.labels);
            let weight = endpoint.weight.max(1);
            group.load_balancing_weight =
                Some(group.load_balancing_weight.unwrap_or(0).saturating_add(weight));
            group.lb_endpoints.push(lb_endpoint(endpoint, weight, mtls));
        }
        let mut localities: Vec<_> = localities.into_values().collect();
        let labels: Vec<_> = labels.into_values().collect();
        if let Some(preference) = Preference::of(self.mesh, self.service, self.policy) {
            preference.apply(self.proxy, &mut localities, &labels);
        }
        ClusterLoadAssignment {
            cluster_name: cluster.to_owned(),
            endpoints: localities,
            ..ClusterLoadAssignment::default()
        }
    }
}

/// The only endpoint of a cluster.
pub(super) fn only(cluster: &str, place: &str, port: u32) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(address(place, port)),
            ..EnvoyEndpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// An address and a port, or `unix://PATH`.
fn address(place: &str, port: u32) -> Address {
    let kind = match place.strip_prefix("unix://") {
        Some(path) => Kind::Pipe(Pipe { path: path.to_owned(), ..Pipe::default() }),
        None => Kind::SocketAddress(SocketAddress {
            address: place.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        }),
    };
    Address { address: Some(kind) }
}

fn lb_endpoint(endpoint: &Endpoint, weight: u32, mtls: bool) -> LbEndpoint {
    let metadata = mtls.then(|| {
        let matched = values::fields([("tlsMode", values::text("istio"))]);
        Metadata {
            filter_metadata: BTreeMap::from([("envoy.transport_socket_match".to_owned(), matched)]),
        }
    });
    LbEndpoint {
        metadata,
        health_status: match endpoint.ready {
            None => HealthStatus::Unknown,
            Some(true) => HealthStatus::Healthy,
            Some(false) => HealthStatus::Unhealthy,
        }
        .into(),
        load_balancing_weight: Some(weight),
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(address(&endpoint.address, endpoint.port)),
            ..EnvoyEndpoint::default()
        })),
    }
}

fn kubernetes(mesh: &Mesh, slices: &Slices<'_>, service: &Service, port: &Port) -> Vec<Endpoint> {
    let namespace = service.namespace();
    let mut found = Vec::new();
    let of_service = slices.0.get(&(namespace, service.name.as_str()));
    for slice in of_service.into_iter().flatten() {
        let Some(number) = number(&slice.ports, port) else { continue };
        for endpoint in &slice.endpoints {
            // Where nearer ones are preferred, it must be seen that they are not ready.
            let ready = endpoint.conditions.ready != Some(false);
            if !ready && locality::preferred_labels(service).is_none() {
                continue;
            }
            // Several addresses are of one endpoint: any of them will do.
            let Some(address) = endpoint.addresses.first() else { continue };
            let pod = of_pod(mesh, address, number, endpoint.target_ref.as_ref(), namespace);
            found.push(Endpoint { ready: Some(ready), ..pod });
        }
    }
    if found.is_empty() {
        let object = mesh.get(ObjectKind::Endpoints, namespace, &service.name);
        if let Some(Spec::Endpoints(endpoints)) = object.map(|it| &it.spec) {
            found = old_form(mesh, endpoints, port, namespace);
        }
    }
    found
}

fn old_form(mesh: &Mesh, endpoints: &Endpoints, port: &Port, namespace: &str) -> Vec<Endpoint> {
    let with_number =
        endpoints.subsets.iter().filter_map(|it| Some((it, number(&it.ports, port)?)));
    with_number
        .flat_map(|(subset, number)| subset.addresses.iter().map(move |it| (it, number)))
        .map(|(it, number)| of_pod(mesh, &it.ip, number, it.target_ref.as_ref(), namespace))
        .collect()
}

/// The number that endpoints have for a service's port: that of the same name.
fn number(ports: &[EndpointPort], wanted: &Port) -> Option<u32> {
    let port = ports.iter().find(|it| it.name == wanted.name)?;
    port.port.map(Into::into)
}

fn of_pod(
    mesh: &Mesh,
    address: &str,
    port: u32,
    target: Option<&TargetRef>,
    namespace: &str,
) -> Endpoint {
    let target = target.filter(|it| it.kind == "Pod");
    let pod = target.and_then(|it| mesh.get(ObjectKind::Pod, namespace, &it.name));
    let labels = pod.map(|it| it.metadata.labels.clone()).unwrap_or_default();
    let account = pod.map(|it| account(it));
    let sidecar = labels.get(TLS_MODE).is_some_and(|mode| mode == "istio");
    Endpoint {
        address: address.to_owned(),
        port,
        locality: labelled_locality(&labels),
        weight: 0,
        identity: account.map(|it| identity(mesh, namespace, it)),
        sidecar,
        mtls: sidecar && accepts_mtls(mesh, namespace, &labels, port),
        labels,
        ready: Some(true),
    }
}

/// Whether a workload's `PeerAuthentication` leaves mTLS on at this port.
fn accepts_mtls(mesh: &Mesh, namespace: &str, labels: &Labels, port: u32) -> bool {
    Demand::of_workload(mesh, namespace, labels).on(port) != Mode::Disable
}

fn account(pod: &Object) -> &str {
    match &pod.spec {
        Spec::Pod(pod) if !pod.service_account_name.is_empty() => &pod.service_account_name,
        _ => "default",
    }
}

fn labelled_locality(labels: &Labels) -> Locality {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        sub_zone: label("topology.istio.io/subzone"),
    }
}

/// The identity of a service account.
pub fn identity(mesh: &Mesh, namespace: &str, account: &str) -> String {
    format!("spiffe://{}/ns/{namespace}/sa/{account}", mesh.config.trust_domain)
}

fn entries(mesh: &Mesh, service: &Service, entry: &ServiceEntry, port: &Port) -> Vec<Endpoint> {
    let namespace = service.namespace();
    if let Some(selector) = &entry.workload_selector {
        let entries = mesh
            .of_namespace::<WorkloadEntry>(namespace)
            .filter(|it| selects(&selector.labels, &it.spec.labels))
            .map(|it| of_entry(mesh, it.spec, port, namespace));
        return entries.chain(selected::pods(mesh, namespace, selector, port)).collect();
    }
    if entry.endpoints.is_empty() && service.resolution == Resolution::Passthrough {
        // The client has chosen an address: nobody else can.
        return Vec::new();
    }
    if entry.endpoints.is_empty() {
        // A name is its own endpoint.
        let itself = WorkloadEntry { address: service.host.clone(), ..WorkloadEntry::default() };
        return vec![of_entry(mesh, &itself, port, namespace)];
    }
    entry.endpoints.iter().map(|it| of_entry(mesh, it, port, namespace)).collect()
}

fn of_entry(mesh: &Mesh, entry: &WorkloadEntry, port: &Port, namespace: &str) -> Endpoint {
    let account = Some(entry.service_account.as_str()).filter(|it| !it.is_empty());
    let mode = entry.labels.get(TLS_MODE).map(String::as_str);
    let sidecar = mode.map_or(account.is_some(), |mode| mode == "istio");
    let is_path = entry.address.starts_with("unix://");
    let number = entry.ports.get(&port.name).copied().unwrap_or(port.target);
    let mut parts = entry.locality.split('/').map(ToOwned::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Endpoint {
        address: entry.address.clone(),
        port: if is_path { 0 } else { number },
        locality: Locality { region: part(), zone: part(), sub_zone: part() },
        weight: entry.weight,
        identity: account.map(|it| identity(mesh, namespace, it)),
        sidecar,
        mtls: sidecar && accepts_mtls(mesh, namespace, &entry.labels, number),
        labels: entry.labels.clone(),
        ready: None,
    }
}
