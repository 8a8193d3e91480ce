//! Where routes send requests: services that exist and may be referred to. What may not, or is not there, keeps its share
//! of the requests, and answers them with 500.

use std::cell::OnceCell;
use std::sync::Arc;

use super::listeners::granted;
use super::{Problems, unmet};
use crate::model::Mesh;
use crate::model::gateway_api::http_route::HttpBackendRef;
use crate::model::gateway_api::reference::{BackendObjectReference, BackendRef};
use crate::model::host;
use crate::model::istio::virtual_service::{Destination, PortSelector};
use crate::model::kind::{Kind, Spec};
use crate::model::object::Object;
use crate::model::services::Services;

/// What makes destinations of a route's references.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends<'a, 'm> {
    pub(super) mesh: &'m Mesh,
    /// All services, which few routes ask for.
    pub(super) services: &'a OnceCell<Services>,
    pub(super) route: &'m Arc<Object>,
    /// Whether other namespaces must have granted it: not for routes of the mesh.
    pub(super) by_grant: bool,
}

/// A reference to a backend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference<'m> {
    group: &'m str,
    kind: &'m str,
    namespace: Option<&'m str>,
    name: &'m str,
    port: Option<u16>,
}

macro_rules! references {
    ($($type:ty),+) => {$(
        impl<'m> From<&'m $type> for Reference<'m> {
            fn from(it: &'m $type) -> Self {
                Self {
                    group: &it.group,
                    kind: &it.kind,
                    namespace: it.namespace.as_deref(),
                    name: &it.name,
                    port: it.port,
                }
            }
        }
    )+};
}

references!(HttpBackendRef, BackendObjectReference, BackendRef);

impl<'m> Backends<'_, 'm> {
    /// The destination; one without host if it is none.
    pub(super) fn destination(
        &self,
        reference: Reference<'m>,
        path: &str,
        problems: &mut Problems<'m>,
    ) -> Destination {
        match self.found(reference) {
            Ok(found) => found,
            Err((condition, why)) => {
                problems.add(self.route, path, condition, &why);
                Destination::default()
            }
        }
    }

    fn found(&self, reference: Reference<'m>) -> Result<Destination, (&'static str, String)> {
        let Reference { group, kind, namespace, name, port } = reference;
        let own = self.route.metadata.namespace.as_str();
        let namespace = namespace.unwrap_or(own);
        let group = if group == "core" { "" } else { group };
        if self.by_grant && namespace != own {
            let from = (self.route.type_meta.kind.as_str(), own);
            if !granted(self.mesh, from, (group, kind, namespace, name)) {
                let why =
                    format!("no ReferenceGrant in {namespace} allows the use of {kind} {name}");
                return Err((unmet::NOT_PERMITTED, why));
            }
        }
        let (host, ports): (String, Vec<u32>) = match (group, kind) {
            ("", "Service") => {
                let found = self.mesh.get(Kind::Service, namespace, name);
                let Some(Spec::Service(service)) = found.map(|it| &it.spec) else {
                    let why = format!("there is no Service {namespace}/{name}");
                    return Err((unmet::NOT_FOUND, why));
                };
                let ports = service.ports.iter().map(|it| it.port.into()).collect();
                (host::service(name, namespace), ports)
            }
            ("networking.istio.io", "Hostname") => {
                let services = self.services.get_or_init(|| Services::new(self.mesh));
                let Some(known) = services.find(name, own) else {
                    return Err((unmet::NOT_FOUND, format!("no service has the host {name}")));
                };
                (name.to_ascii_lowercase(), known.ports.clone())
            }
            _ => {
                let why = format!("{kind} of {group:?} is no backend here");
                return Err((unmet::INVALID_KIND, why));
            }
        };
        match port.map(u32::from) {
            Some(number) if ports.contains(&number) => Ok(Destination {
                host,
                port: Some(PortSelector { number }),
                ..Destination::default()
            }),
            Some(number) => Err((unmet::NOT_FOUND, format!("{host} has no port {number}"))),
            None => Err((unmet::UNSUPPORTED_VALUE, "a port is required".to_owned())),
        }
    }
}
