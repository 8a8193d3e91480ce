//! What translating looks up in a mesh: made once for each mesh, and shared by all proxies. It is the mesh, too.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use super::audience::Telling;
use super::endpoints::{self, Endpoint, Slices};
use super::gateway_api::{GatewayApi, Listening};
use super::service::{self, Port, Service};
use super::virtual_services::{self, Virtual};
use crate::model::Mesh;
use crate::model::protocol::Protocol;

/// A mesh, and what follows from it for every proxy alike.
#[derive(Debug)]
pub struct Index {
    mesh: Arc<Mesh>,
    /// Those that a name stands for: Kubernetes' before the others.
    by_host: BTreeMap<String, Vec<Arc<Service>>>,
    /// The oldest first.
    by_age: Vec<Arc<Service>>,
    /// By the service's host.
    endpoints: HashMap<String, Vec<Behind>>,
    /// By the endpoint's address.
    targets: HashMap<String, Vec<Target>>,
    /// In the order in which they count.
    virtual_services: Vec<Arc<Virtual>>,
    gateway_listeners: Vec<Listening>,
    telling: Telling,
}

/// The endpoints of a service's ports.
#[derive(Debug)]
struct Behind {
    service: Arc<Service>,
    /// In the order of the service's ports.
    ports: Vec<Vec<Endpoint>>,
}

/// A service's port that leads to a workload.
#[derive(Debug)]
struct Target {
    /// Services of several addresses stay in order.
    rank: usize,
    service: Arc<Service>,
    /// Which of its ports.
    port: usize,
    /// The workload's own port.
    number: u32,
}

impl Deref for Index {
    type Target = Mesh;

    fn deref(&self) -> &Mesh {
        &self.mesh
    }
}

impl Index {
    /// What follows from a mesh.
    pub fn new(mesh: impl Into<Arc<Mesh>>) -> Self {
        let mesh = mesh.into();
        let services: Vec<_> = service::all(&mesh).into_iter().map(Arc::new).collect();
        let slices = Slices::of(&mesh);
        let mut by_host: BTreeMap<String, Vec<Arc<Service>>> = BTreeMap::new();
        let mut endpoints: HashMap<String, Vec<Behind>> = HashMap::new();
        let mut targets: HashMap<String, Vec<Target>> = HashMap::new();
        for (rank, service) in services.iter().enumerate() {
            let ports =
                service.ports.iter().map(|port| endpoints::of(&mesh, &slices, service, port));
            let behind = Behind { service: Arc::clone(service), ports: ports.collect() };
            behind.note_targets(rank, &mut targets);
            endpoints.entry(service.host.clone()).or_default().push(behind);
            by_host.entry(service.host.clone()).or_default().push(Arc::clone(service));
        }
        let mut by_age = services;
        by_age.sort_by(|one, other| age(one).cmp(&age(other)));
        let GatewayApi { listeners, virtual_services, .. } = GatewayApi::new(&mesh);
        let virtual_services = virtual_services::all(&mesh, virtual_services);
        let virtual_services: Vec<_> = virtual_services.into_iter().map(Arc::new).collect();
        Self {
            telling: Telling::of(&mesh, &by_age, &virtual_services),
            by_host,
            by_age,
            endpoints,
            targets,
            virtual_services,
            gateway_listeners: listeners,
            mesh,
        }
    }

    /// The mesh.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// The services of each name, Kubernetes' before the others.
    pub(super) fn services_by_host(&self) -> impl Iterator<Item = &[Arc<Service>]> {
        self.by_host.values().map(Vec::as_slice)
    }

    /// The services of a name, Kubernetes' before the others.
    pub(super) fn services_of_host(&self, host: &str) -> &[Arc<Service>] {
        self.by_host.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// All services, the oldest first.
    pub(super) fn services_by_age(&self) -> &[Arc<Service>] {
        &self.by_age
    }

    /// The endpoints of one port of a service.
    pub fn endpoints(&self, service: &Service, port: &Port) -> &[Endpoint] {
        let mut of_host = self.endpoints.get(&service.host).into_iter().flatten();
        let Some(behind) = of_host.find(|it| Arc::ptr_eq(&it.service.object, &service.object))
        else {
            return &[];
        };
        let mut ports = behind.service.ports.iter().zip(&behind.ports);
        ports
            .find(|(it, _)| *it == port)
            .map(|(_, endpoints)| endpoints.as_slice())
            .unwrap_or_default()
    }

    /// The services' ports that lead to a workload with one of these addresses, by the workload's own port.
    pub(super) fn targets(&self, addresses: &[String]) -> BTreeMap<u32, Vec<(&Service, &Port)>> {
        let mut by_port: BTreeMap<u32, Vec<(&Service, &Port)>> = BTreeMap::new();
        let of_addresses = addresses.iter().filter_map(|it| self.targets.get(it)).flatten();
        let mut of_addresses: Vec<_> = of_addresses.collect();
        of_addresses.sort_by_key(|it| (it.rank, it.port));
        for Target { rank: _, service, port, number } in of_addresses {
            if let Some(port) = service.ports.get(*port) {
                by_port.entry(*number).or_default().push((service, port));
            }
        }
        by_port
    }

    /// The listeners of the Gateway API's gateways, whoever serves them.
    pub(super) fn gateway_listeners(&self) -> &[Listening] {
        &self.gateway_listeners
    }

    /// The labels by which clients are told apart.
    pub(super) fn telling(&self) -> &Telling {
        &self.telling
    }

    /// All virtual services, in the order in which they count.
    pub(super) fn virtual_services(&self) -> &[Arc<Virtual>] {
        &self.virtual_services
    }
}

impl Behind {
    fn note_targets(&self, rank: usize, targets: &mut HashMap<String, Vec<Target>>) {
        for (port, endpoints) in self.ports.iter().enumerate() {
            if self.service.ports.get(port).is_none_or(|it| it.protocol == Protocol::Udp) {
                continue;
            }
            for endpoint in endpoints.iter().filter(|it| it.port != 0) {
                let service = Arc::clone(&self.service);
                let target = Target { rank, service, port, number: endpoint.port };
                targets.entry(endpoint.address.clone()).or_default().push(target);
            }
        }
    }
}

/// What sorts services: the oldest first, and never at random.
fn age(service: &Service) -> (&str, &str, &str, &str) {
    let age = service.object.metadata.creation_timestamp.as_deref().unwrap_or_default();
    (age, &service.name, service.namespace(), &service.host)
}
