//! Which policies are for a proxy: by selector, or by a reference to the Gateway that the proxy serves.

use super::proxy::Proxy;
use crate::model::istio::authorization_policy::AuthorizationPolicy;
use crate::model::istio::request_authentication::RequestAuthentication;
use crate::model::istio::selector::{PolicyTargetReference, WorkloadSelector};
use crate::model::istio::telemetry::Telemetry;
use crate::model::kind::Typed;
use crate::model::workloads::selects;
use crate::model::{Found, Mesh};

/// The label of pods that serve a Gateway of the Gateway API: its name.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A policy that says which workloads it is for.
pub(super) trait Attached: Typed {
    /// Labels of the workloads; none for all.
    fn selector(&self) -> Option<&WorkloadSelector>;
    /// Objects that it is for, in place of labels.
    fn targets(&self) -> Vec<&PolicyTargetReference>;
}

macro_rules! attached {
    ($($kind:ty),+) => {$(
        impl Attached for $kind {
            fn selector(&self) -> Option<&WorkloadSelector> {
                self.selector.as_ref()
            }

            fn targets(&self) -> Vec<&PolicyTargetReference> {
                match self.target_refs.as_slice() {
                    [] => self.target_ref.iter().collect(),
                    targets => targets.iter().collect(),
                }
            }
        }
    )+};
}

attached!(AuthorizationPolicy, RequestAuthentication, Telemetry);

/// The policies for a proxy: those of the root namespace, then those of its own.
pub(super) fn policies<'m, T: Attached + 'm>(mesh: &'m Mesh, proxy: &Proxy) -> Vec<Found<'m, T>> {
    let root = mesh.config.root_namespace.as_str();
    let own = Some(proxy.namespace.as_str()).filter(|own| *own != root);
    let mut found = Vec::new();
    for namespace in [root].into_iter().chain(own) {
        found.extend(mesh.of_namespace::<T>(namespace).filter(|it| is_for(*it, proxy)));
    }
    found
}

/// Whether a policy that is in force in the proxy's namespace is for the proxy.
pub(super) fn is_for<T: Attached>(policy: Found<'_, T>, proxy: &Proxy) -> bool {
    let targets = policy.spec.targets();
    let selector = policy.spec.selector();
    let selected = || selector.is_none_or(|it| selects(&it.match_labels, &proxy.labels));
    match proxy.labels.get(GATEWAY_NAME) {
        None => targets.is_empty() && selected(),
        Some(_) if targets.is_empty() => selected(),
        Some(gateway) => targets.iter().any(|target| {
            target.group == "gateway.networking.k8s.io"
                && target.kind == "Gateway"
                && target.name == *gateway
                && policy.namespace() == proxy.namespace
                && (target.namespace.is_empty() || target.namespace == proxy.namespace)
        }),
    }
}
