//! `GRPCRoute`: calls are requests whose path is service and method.

use std::cell::OnceCell;

use super::backends::Backends;
use super::http::{Parts, name, of_parents};
use super::listeners::Listening;
use super::merge::Made;
use super::parents::Route;
use super::{Problems, matches};
use crate::model::gateway_api::grpc_route::GrpcRoute;
use crate::model::{Found, Mesh};

/// The routes of all `GRPCRoute`s, for each parent and host.
pub(super) fn routes<'m>(
    mesh: &'m Mesh,
    listeners: &[Listening],
    problems: &mut Problems<'m>,
) -> Vec<Made<'m>> {
    let services = OnceCell::new();
    let mut made = Vec::new();
    for found in mesh.all::<GrpcRoute>() {
        let Found { object, spec } = found;
        let route = Route { object, parents: &spec.parent_refs, hostnames: &spec.hostnames };
        let attached = route.attached(mesh, listeners, problems);
        made.extend(of_parents(object, &attached, |by_grant| {
            let backends = Backends { mesh, services: &services, route: object, by_grant };
            let mut routes = Vec::new();
            for (index, rule) in spec.rules.iter().enumerate() {
                let path = format!("spec.rules[{index}]");
                if rule.session_persistence.is_some() {
                    let at = format!("{path}.sessionPersistence");
                    let why = "a session's calls go to any endpoint";
                    problems.add(object, &at, "Not applied", why);
                }
                let matched = rule.matches.iter().map(|it| Some(matches::of_grpc(it)));
                let matches: Vec<_> =
                    if rule.matches.is_empty() { vec![None] } else { matched.collect() };
                let name = name(&backends, rule.name.as_deref(), index);
                let (filters, backend_refs) = (&rule.filters, &rule.backend_refs);
                let parts = Parts { name, matches, filters, backend_refs, path };
                routes.extend(parts.routes(&backends, problems));
            }
            routes
        }));
    }
    made
}
