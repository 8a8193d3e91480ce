//! Checks of objects one by one: what an API server and istiod's webhook would refuse or warn of.

mod check;
mod destination_rule;
mod extension;
mod gateway;
mod gateway_api;
mod host;
mod security;
mod service_entry;
mod sidecar;
mod telemetry;
mod traffic_policy;
mod unreachable;
mod virtual_service;
mod workload;

use super::finding::Findings;
use crate::model::kind::Spec;
use crate::model::object::Object;
use check::Check;

pub(super) use host::is_subnet;

/// Reports what is wrong with an object, as far as it can be seen from it alone.
pub(super) fn check(object: &Object, findings: &mut Findings) {
    let check = &mut Check::new(object, findings);
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::check(spec, check),
        Spec::DestinationRule(spec) => destination_rule::check(spec, check),
        Spec::Gateway(spec) => gateway::check(spec, check),
        Spec::ServiceEntry(spec) => service_entry::check(spec, check),
        Spec::Sidecar(spec) => sidecar::check(spec, check),
        Spec::WorkloadEntry(spec) => workload::entry(spec, check),
        Spec::WorkloadGroup(spec) => workload::group(spec, check),
        Spec::EnvoyFilter(spec) => extension::envoy_filter(spec, check),
        Spec::WasmPlugin(spec) => extension::wasm_plugin(spec, check),
        Spec::ProxyConfig(spec) => extension::proxy_config(spec, check),
        Spec::AuthorizationPolicy(spec) => security::authorization_policy(spec, check),
        Spec::PeerAuthentication(spec) => security::peer_authentication(spec, check),
        Spec::RequestAuthentication(spec) => security::request_authentication(spec, check),
        Spec::Telemetry(spec) => telemetry::check(spec, check),
        Spec::KubernetesGateway(spec) => gateway_api::gateway(spec, check),
        Spec::HttpRoute(spec) => gateway_api::http_route(spec, check),
        _ => {}
    }
}
