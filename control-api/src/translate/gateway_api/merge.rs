//! Routes for the same host at the same gateway become one virtual service, in which the closest match comes first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Mesh;
use crate::model::istio::virtual_service::{HttpRoute, StringMatch, VirtualService};
use crate::model::object::Object;
use crate::translate::virtual_services::{MESH, Virtual, visibility};

/// The routes of one object for one host at one gateway.
#[derive(Debug, Clone)]
pub(super) struct Made<'m> {
    pub(super) object: &'m Arc<Object>,
    /// `NAMESPACE/NAME`, or `mesh`.
    pub(super) gateway: String,
    /// The port of a service that the routes are for.
    pub(super) port: Option<u16>,
    pub(super) host: String,
    pub(super) http: Vec<HttpRoute>,
}

impl Made<'_> {
    /// What the virtual service is called. In the mesh, each namespace has its own.
    fn name(&self) -> String {
        let Self { object, gateway, port, host, .. } = self;
        if gateway != MESH {
            return format!("{gateway}/{host}").replace('/', "~");
        }
        let namespace = &object.metadata.namespace;
        match port {
            Some(port) => format!("{namespace}~{port}~{host}"),
            None => format!("{namespace}~{host}"),
        }
    }

    /// The oldest object comes first.
    fn age(&self) -> (String, &str, &str) {
        let metadata = &self.object.metadata;
        let age = metadata.creation_timestamp.clone().unwrap_or_default();
        (age, &metadata.namespace, &metadata.name)
    }
}

/// One virtual service for each gateway and host.
pub(super) fn merged<'m>(mesh: &Mesh, made: Vec<Made<'m>>) -> Vec<Virtual> {
    let mut by_name: BTreeMap<String, Vec<Made<'m>>> = BTreeMap::new();
    for it in made {
        by_name.entry(it.name()).or_default().push(it);
    }
    by_name.into_iter().filter_map(|(name, made)| one(mesh, name, made)).collect()
}

fn one<'m>(mesh: &Mesh, name: String, mut made: Vec<Made<'m>>) -> Option<Virtual> {
    made.sort_by(|one, other| one.age().cmp(&other.age()));
    let first = made.first()?;
    let (object, gateway, host) = (first.object, first.gateway.clone(), first.host.clone());
    let mut http: Vec<_> = made.into_iter().flat_map(|it| it.http).collect();
    http.sort_by_cached_key(closeness);
    let spec =
        VirtualService { hosts: vec![host], gateways: vec![gateway], http, ..Default::default() };
    let visibility = visibility(mesh, &spec, &object.metadata.namespace);
    Some(Virtual { name, object: Arc::clone(object), spec, visibility, of_gateway_api: true })
}

/// What makes a match come before others: an exact path before a prefix before an expression, a long one before a short
/// one, then a method, and the number of headers and parameters.
fn closeness(route: &HttpRoute) -> impl Ord + use<> {
    let Some(wanted) = route.r#match.first() else {
        return (true, Reverse((0, 0)), Reverse((false, 0, 0)));
    };
    let (rank, length) = match &wanted.uri {
        Some(StringMatch::Exact(path)) => (3, path.len()),
        Some(StringMatch::Prefix(path)) => (2, path.len()),
        Some(StringMatch::Regex(regex)) => (1, regex.len()),
        Some(StringMatch::Present) | None => (0, 0),
    };
    let others = (wanted.method.is_some(), wanted.headers.len(), wanted.query_params.len());
    (false, Reverse((rank, length)), Reverse(others))
}
