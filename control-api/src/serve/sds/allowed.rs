//! Which `Secret` objects a proxy may have.
//!
//! Istio gives a gateway the secrets of its own namespace if Kubernetes lets its service account list them. Files of
//! YAML have nobody to ask that, so here a gateway is a proxy whose pods, as the mesh knows them and whatever the proxy
//! says of itself, some `Gateway` selects.

use super::kubernetes::{Reference, ReferenceKind};
use crate::model::Mesh;
use crate::model::gateway_api::gateway as gateway_api;
use crate::model::gateway_api::reference::GROUP;
use crate::model::gateway_api::reference_grant::ReferenceGrant;
use crate::model::istio::gateway::Gateway;
use crate::model::workloads::{Labels, selects};
use crate::serve::auth::Caller;
use crate::translate::proxy::{Proxy, Role};

/// On a pod: the Gateway API's gateway that it belongs to.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Whether `caller` may have it for `proxy`.
///
/// # Errors
/// Why not.
pub(super) fn check(
    mesh: &Mesh,
    proxy: &Proxy,
    caller: &Caller,
    reference: &Reference<'_>,
) -> Result<(), &'static str> {
    match reference.kind {
        ReferenceKind::Istio if reference.namespace != caller.namespace() => {
            Err("it is in another namespace than the proxy")
        }
        ReferenceKind::Istio if reference.is_public() || is_gateway(mesh, proxy, caller) => Ok(()),
        ReferenceKind::GatewayApi if !is_gateway(mesh, proxy, caller) => Err(NO_GATEWAY),
        ReferenceKind::GatewayApi if is_named(mesh, caller, reference) => Ok(()),
        ReferenceKind::GatewayApi => {
            Err("no Gateway of the proxy's namespace names it, or no ReferenceGrant allows that")
        }
        ReferenceKind::Istio => Err(NO_GATEWAY),
    }
}

const NO_GATEWAY: &str = "no Gateway selects the pods of its service account";

fn is_gateway(mesh: &Mesh, proxy: &Proxy, caller: &Caller) -> bool {
    if proxy.role != Role::Router {
        return false;
    }
    let (namespace, account) = (caller.namespace(), caller.service_account());
    let mut known = mesh
        .workloads()
        .filter(|it| it.namespace() == namespace)
        .filter(|it| or_default(&it.pod.service_account_name) == or_default(account))
        .map(|it| it.labels)
        .peekable();
    if known.peek().is_none() {
        return is_selected(mesh, namespace, &proxy.labels);
    }
    known.any(|labels| is_selected(mesh, namespace, labels))
}

fn or_default(account: &str) -> &str {
    if account.is_empty() { "default" } else { account }
}

/// Whether some gateway is made of pods with these labels.
fn is_selected(mesh: &Mesh, namespace: &str, labels: &Labels) -> bool {
    let by_istio = mesh
        .all::<Gateway>()
        .any(|it| !it.spec.selector.is_empty() && selects(&it.spec.selector, labels));
    let of = labels.get(GATEWAY_NAME);
    by_istio
        || mesh
            .all::<gateway_api::Gateway>()
            .any(|it| it.namespace() == namespace && of.is_some_and(|of| of == it.name()))
}

/// Whether a gateway of the caller's namespace names it, and may.
fn is_named(mesh: &Mesh, caller: &Caller, reference: &Reference<'_>) -> bool {
    let namespace = caller.namespace();
    let own = mesh.all::<gateway_api::Gateway>().filter(|it| it.namespace() == namespace);
    let tls = own.flat_map(|it| it.spec.listeners.iter().filter_map(|it| it.tls.as_ref()));
    let mut refs = tls.flat_map(|it| &it.certificate_refs);
    let named = refs.any(|it| {
        it.group.is_empty()
            && it.kind == "Secret"
            && it.name == reference.base()
            && it.namespace.as_deref().unwrap_or(namespace) == reference.namespace
    });
    named && (reference.namespace == namespace || is_granted(mesh, namespace, reference))
}

fn is_granted(mesh: &Mesh, from: &str, reference: &Reference<'_>) -> bool {
    let grants = mesh.all::<ReferenceGrant>().filter(|it| it.namespace() == reference.namespace);
    let mut grants = grants.map(|it| it.spec);
    grants.any(|grant| {
        grant
            .from
            .iter()
            .any(|it| it.group == GROUP && it.kind == "Gateway" && it.namespace == from)
            && grant.to.iter().any(|it| {
                let name = it.name.as_deref().unwrap_or(reference.base());
                it.group.is_empty() && it.kind == "Secret" && name == reference.base()
            })
    })
}
