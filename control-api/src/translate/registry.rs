//! What the mesh's services are and what stands behind them, whoever asks: for people who look for a fault.

use super::endpoints::{self, Endpoint};
use super::service::{self, Port, Service};
use crate::model::Mesh;

/// A service with what stands behind its ports.
#[derive(Debug)]
pub struct Registered<'m> {
    /// The service.
    pub service: Service<'m>,
    /// Its ports, each with its endpoints.
    pub ports: Vec<(Port, Vec<Endpoint>)>,
}

/// Every service of a mesh, Kubernetes' before the others.
pub fn services(mesh: &Mesh) -> Vec<Registered<'_>> {
    let of = |service: Service<'_>| {
        let ports = service.ports.iter();
        let ports = ports.map(|port| (port.clone(), endpoints::of(mesh, &service, port)));
        ports.collect::<Vec<_>>()
    };
    let all = service::all(mesh).into_iter();
    all.map(|service| Registered { ports: of(service.clone()), service }).collect()
}
