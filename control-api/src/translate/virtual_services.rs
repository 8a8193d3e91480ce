//! Virtual services as routes are made from them: delegates put in, short names made full, the first one first.

mod delegate;

pub(super) use delegate::misfits;

use std::sync::Arc;

use super::index::Index;
use super::proxy::Proxy;
use crate::model::Mesh;
use crate::model::host;
use crate::model::istio::virtual_service::{Destination, VirtualService};
use crate::model::object::Object;
use crate::model::visibility::Visibility;

/// The gateway that stands for all sidecars.
pub const MESH: &str = "mesh";

/// A virtual service with full names only, and without delegates.
#[derive(Debug, Clone)]
pub struct Virtual {
    /// Its name.
    pub name: String,
    /// The object that tells of it.
    pub object: Arc<Object>,
    /// Its content; gateways are `NAMESPACE/NAME` or `mesh`.
    pub spec: VirtualService,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether it is made of the Gateway API's routes, which mean some things differently.
    pub of_gateway_api: bool,
}

impl Virtual {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.object.metadata.namespace
    }

    /// Whether it is for this gateway.
    pub fn is_for(&self, gateway: &str) -> bool {
        self.spec.gateways.iter().any(|it| it == gateway)
    }

    /// Where the API server has it, for people who look for the origin of a route.
    pub fn path(&self) -> String {
        format!(
            "/apis/networking.istio.io/v1/namespaces/{}/virtual-service/{}",
            self.namespace(),
            self.name()
        )
    }
}

/// The virtual services that a proxy may see, in the order in which they count: the Gateway API's of its own namespace go
/// before what others say of their services.
pub fn visible(index: &Index, proxy: &Proxy) -> Vec<Arc<Virtual>> {
    let all = index.virtual_services().iter();
    let mut all: Vec<_> = all.filter(|it| it.visibility.sees(&proxy.namespace)).cloned().collect();
    let of_consumer = |it: &Virtual| it.of_gateway_api && it.namespace() == proxy.namespace;
    all.sort_by_key(|it| (rank(&it.visibility), !of_consumer(it)));
    all
}

/// The virtual services of a mesh, with those that the Gateway API's routes are. Those for one namespace alone come first,
/// then those for some namespaces, then the others; the oldest first.
pub(super) fn all(mesh: &Mesh, of_gateway_api: Vec<Virtual>) -> Vec<Virtual> {
    let mut all: Vec<_> = mesh
        .all::<VirtualService>()
        // Those without hosts are delegates.
        .filter(|found| !found.spec.hosts.is_empty())
        .map(|found| Virtual {
            name: found.name().to_owned(),
            object: Arc::clone(found.object),
            spec: full_names(delegate::merged(mesh, found), found.namespace()),
            visibility: visibility(mesh, found.spec, found.namespace()),
            of_gateway_api: false,
        })
        .collect();
    all.extend(of_gateway_api);
    all.sort_by_cached_key(|it| {
        let metadata = &it.object.metadata;
        let age = metadata.creation_timestamp.clone().unwrap_or_default();
        (rank(&it.visibility), age, it.name.clone(), metadata.namespace.clone())
    });
    all
}

/// Who may see it.
pub(super) fn visibility(mesh: &Mesh, spec: &VirtualService, namespace: &str) -> Visibility {
    Visibility::of(&spec.export_to, namespace, &mesh.config.default_virtual_service_export_to)
}

fn rank(visibility: &Visibility) -> usize {
    match visibility {
        Visibility::Only(namespaces) if namespaces.len() == 1 => 0,
        Visibility::Only(_) => 1,
        Visibility::All => 2,
    }
}

/// The same with full names of hosts and gateways.
fn full_names(mut spec: VirtualService, namespace: &str) -> VirtualService {
    for name in &mut spec.hosts {
        *name = host::qualified(name, namespace);
    }
    if spec.gateways.is_empty() {
        spec.gateways.push(MESH.to_owned());
    }
    gateways(&mut spec.gateways, namespace);
    let full = |destination: &mut Destination| {
        destination.host = host::qualified(&destination.host, namespace);
    };
    for route in &mut spec.http {
        route.r#match.iter_mut().for_each(|it| gateways(&mut it.gateways, namespace));
        route.route.iter_mut().filter_map(|it| it.destination.as_mut()).for_each(full);
        route.mirror.iter_mut().for_each(full);
        route.mirrors.iter_mut().filter_map(|it| it.destination.as_mut()).for_each(full);
    }
    for route in &mut spec.tcp {
        route.r#match.iter_mut().for_each(|it| gateways(&mut it.gateways, namespace));
        route.route.iter_mut().filter_map(|it| it.destination.as_mut()).for_each(full);
    }
    for route in &mut spec.tls {
        route.r#match.iter_mut().for_each(|it| gateways(&mut it.gateways, namespace));
        route.route.iter_mut().filter_map(|it| it.destination.as_mut()).for_each(full);
    }
    spec
}

fn gateways(names: &mut [String], namespace: &str) {
    for name in names.iter_mut().filter(|name| *name != MESH) {
        *name = gateway(name, namespace);
    }
}

/// The full name of a gateway that an object of `namespace` names: `NAMESPACE/NAME`, `NAME`, or in the old form
/// `NAME.NAMESPACE.svc.cluster.local`.
fn gateway(name: &str, namespace: &str) -> String {
    if let Some((its_namespace, name)) = name.split_once('/') {
        let its_namespace = if its_namespace == "." { namespace } else { its_namespace };
        return format!("{its_namespace}/{name}");
    }
    let mut parts = name.split('.');
    let short = parts.next().unwrap_or_default();
    format!("{}/{short}", parts.next().unwrap_or(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_have_three_forms() {
        assert_eq!(gateway("edge", "shop"), "shop/edge");
        assert_eq!(gateway("./edge", "shop"), "shop/edge");
        assert_eq!(gateway("other/edge", "shop"), "other/edge");
        assert_eq!(gateway("edge.other.svc.cluster.local", "shop"), "other/edge");
    }
}
