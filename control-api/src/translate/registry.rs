//! What the mesh's services are and what stands behind them, whoever asks: for people who look for a fault.

use super::endpoints::Endpoint;
use super::index::Index;
use super::service::{Port, Service};

/// A service with what stands behind its ports.
#[derive(Debug)]
pub struct Registered<'m> {
    /// The service.
    pub service: &'m Service,
    /// Its ports, each with its endpoints.
    pub ports: Vec<(&'m Port, &'m [Endpoint])>,
}

/// Every service of a mesh, by name; of the same name, Kubernetes' before the others.
pub fn services(mesh: &Index) -> Vec<Registered<'_>> {
    mesh.services_by_host().flatten().map(|service| registered(mesh, service)).collect()
}

fn registered<'m>(mesh: &'m Index, service: &'m Service) -> Registered<'m> {
    let ports = service.ports.iter().map(|port| (port, mesh.endpoints(service, port)));
    Registered { service, ports: ports.collect() }
}
