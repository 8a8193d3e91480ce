//! The Gateway API as Istio applies it: its listeners become servers of gateways, its routes virtual services, one for
//! each gateway and host. What of it is not applied is told in the words of its conditions.

mod backends;
mod filters;
mod grpc;
mod http;
mod listeners;
mod matches;
mod merge;
mod parents;
mod streams;

use std::sync::Arc;

use super::virtual_services::Virtual;
use crate::model::Mesh;
use crate::model::object::Object;
pub(super) use listeners::Listening;

/// What the Gateway API's objects of a mesh come to.
#[derive(Debug)]
pub(super) struct GatewayApi<'m> {
    /// The listeners, whoever serves them.
    pub(super) listeners: Vec<Listening>,
    /// The routes, for the mesh and for gateways.
    pub(super) virtual_services: Vec<Virtual>,
    /// What is not applied.
    pub(super) problems: Vec<Problem<'m>>,
}

impl<'m> GatewayApi<'m> {
    /// All of a mesh.
    pub(super) fn new(mesh: &'m Mesh) -> Self {
        let mut problems = Problems::default();
        let listeners = listeners::all(mesh, &mut problems);
        let mut routes = http::routes(mesh, &listeners, &mut problems);
        routes.extend(grpc::routes(mesh, &listeners, &mut problems));
        let mut virtual_services = merge::merged(mesh, routes);
        virtual_services.extend(streams::routes(mesh, &listeners, &mut problems));
        Self { listeners, virtual_services, problems: problems.0 }
    }
}

/// Something that is not applied.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem<'m> {
    /// Where it is written.
    pub(super) object: &'m Arc<Object>,
    /// The field.
    pub(super) path: String,
    /// The condition that is not as it should be, its reason, and words for people.
    pub(super) message: String,
}

/// All that are found.
#[derive(Debug, Default)]
struct Problems<'m>(Vec<Problem<'m>>);

/// A condition of a listener or route that does not hold, as `CONDITION is False (REASON)`.
mod unmet {
    pub(super) const NOT_ALLOWED: &str = "Accepted is False (NotAllowedByListeners)";
    pub(super) const NO_HOSTNAME: &str = "Accepted is False (NoMatchingListenerHostname)";
    pub(super) const NO_PARENT: &str = "Accepted is False (NoMatchingParent)";
    pub(super) const UNSUPPORTED_VALUE: &str = "Accepted is False (UnsupportedValue)";
    pub(super) const UNSUPPORTED_PROTOCOL: &str = "Accepted is False (UnsupportedProtocol)";
    pub(super) const PARTIALLY_INVALID: &str = "PartiallyInvalid is True (UnsupportedValue)";
    pub(super) const UNSUPPORTED_ADDRESS: &str = "Programmed is False (UnsupportedAddress)";
    pub(super) const INVALID_CLASS: &str = "Accepted is False (InvalidParameters)";
    pub(super) const CONFLICTED: &str = "Conflicted is True";
    pub(super) const INVALID_CERTIFICATE: &str = "ResolvedRefs is False (InvalidCertificateRef)";
    pub(super) const INVALID_KINDS: &str = "ResolvedRefs is False (InvalidRouteKinds)";
    pub(super) const NOT_PERMITTED: &str = "ResolvedRefs is False (RefNotPermitted)";
    pub(super) const NOT_FOUND: &str = "ResolvedRefs is False (BackendNotFound)";
    pub(super) const INVALID_KIND: &str = "ResolvedRefs is False (InvalidKind)";
}

impl<'m> Problems<'m> {
    fn add(&mut self, object: &'m Arc<Object>, path: &str, condition: &str, why: &str) {
        let message = format!("{condition}: {why}");
        self.0.push(Problem { object, path: path.to_owned(), message });
    }
}
