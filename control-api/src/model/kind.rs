//! The kinds that are read: their groups and versions, where their content stands, and their types.

use xds::yaml::tree::Node;

use super::gateway_api::{
    backend_tls_policy, gateway as gateway_api, grpc_route, http_route, reference_grant,
    stream_route,
};
use super::istio::{
    authorization_policy, destination_rule, envoy_filter, gateway, peer_authentication,
    proxy_config, request_authentication, service_entry, sidecar, telemetry, virtual_service,
    wasm_plugin, workload_entry, workload_group,
};
use super::kubernetes;
use crate::yaml::{self, Problem, Reading};

/// What all objects of a kind have in common.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Its API group; empty for Kubernetes' core.
    pub group: &'static str,
    /// As in `kind:`.
    pub name: &'static str,
    /// The versions that are accepted, all read in the same way.
    pub versions: &'static [&'static str],
    /// Whether its objects belong to namespaces.
    pub namespaced: bool,
    /// Whether its content stands under `spec`, or beside `metadata`.
    pub has_spec: bool,
    /// Whether all of its fields are known here, so that another one is a mistake.
    pub complete: bool,
    /// Reads the content.
    read: fn(&Node<'_>, &str, &[&str]) -> Reading<Spec>,
}

impl KindInfo {
    /// The kind of this group and name, if it is read.
    pub fn find(group: &str, name: &str) -> Option<&'static KindInfo> {
        KINDS.iter().find(|kind| kind.name == name && kind.group == group)
    }

    /// Reads an object's content from the node that holds it.
    pub(super) fn read(&self, node: &Node<'_>, path: &str, skip: &[&str]) -> Reading<Spec> {
        let mut reading = (self.read)(node, path, skip);
        if !self.complete {
            reading.unknown.clear();
        }
        reading
    }
}

/// The content of one kind of objects.
pub trait Typed: Sized + 'static {
    /// The kind.
    const KIND: Kind;

    /// The content, if it is of this kind.
    fn of(spec: &Spec) -> Option<&Self>;
}

fn reading<T: serde::de::DeserializeOwned>(
    node: &Node<'_>,
    path: &str,
    skip: &[&str],
    wrap: fn(T) -> Spec,
) -> Reading<Spec> {
    let Reading { value, unknown }: Reading<T> = yaml::read(node, path, skip);
    Reading { value: value.map(wrap).map_err(|problem: Problem| problem), unknown }
}

/// `Variant(Type) = "group" "Kind" [versions], namespaced, has_spec, complete;`
macro_rules! kinds {
    ($($kind:ident($($type:tt)::+) = $group:literal $name:literal $versions:tt,
        $namespaced:literal, $spec:literal, $complete:literal;)*) => {
        /// A kind of objects.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "` of ", $group)] $kind,)*
            /// One that the mesh has no use for.
            Other,
        }

        /// An object's content.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Spec {
            $(#[doc = concat!("`", $name, "` of ", $group)] $kind(Box<$($type)::+>),)*
            /// Of a kind that the mesh has no use for.
            Other,
        }

        impl Spec {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Spec::$kind(_) => Kind::$kind,)*
                    Spec::Other => Kind::Other,
                }
            }
        }

        static KINDS: &[KindInfo] = &[$(KindInfo {
            kind: Kind::$kind,
            group: $group,
            name: $name,
            versions: &$versions,
            namespaced: $namespaced,
            has_spec: $spec,
            complete: $complete,
            read: |node, path, skip| reading(node, path, skip, |it| Spec::$kind(Box::new(it))),
        },)*];
    };
}

/// Kinds whose type is their own.
macro_rules! typed {
    ($($kind:ident($($type:tt)::+);)*) => { $(
        impl Typed for $($type)::+ {
            const KIND: Kind = Kind::$kind;

            fn of(spec: &Spec) -> Option<&Self> {
                match spec {
                    Spec::$kind(it) => Some(it),
                    _ => None,
                }
            }
        }
    )* };
}

kinds! {
    VirtualService(virtual_service::VirtualService) = "networking.istio.io" "VirtualService" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    DestinationRule(destination_rule::DestinationRule) = "networking.istio.io" "DestinationRule" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    Gateway(gateway::Gateway) = "networking.istio.io" "Gateway" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    ServiceEntry(service_entry::ServiceEntry) = "networking.istio.io" "ServiceEntry" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    Sidecar(sidecar::Sidecar) = "networking.istio.io" "Sidecar" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    WorkloadEntry(workload_entry::WorkloadEntry) = "networking.istio.io" "WorkloadEntry" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    WorkloadGroup(workload_group::WorkloadGroup) = "networking.istio.io" "WorkloadGroup" ["v1", "v1alpha3", "v1beta1"], true, true, true;
    EnvoyFilter(envoy_filter::EnvoyFilter) = "networking.istio.io" "EnvoyFilter" ["v1alpha3"], true, true, true;
    ProxyConfig(proxy_config::ProxyConfig) = "networking.istio.io" "ProxyConfig" ["v1beta1"], true, true, true;
    AuthorizationPolicy(authorization_policy::AuthorizationPolicy) = "security.istio.io" "AuthorizationPolicy" ["v1", "v1beta1"], true, true, true;
    PeerAuthentication(peer_authentication::PeerAuthentication) = "security.istio.io" "PeerAuthentication" ["v1", "v1beta1"], true, true, true;
    RequestAuthentication(request_authentication::RequestAuthentication) = "security.istio.io" "RequestAuthentication" ["v1", "v1beta1"], true, true, true;
    Telemetry(telemetry::Telemetry) = "telemetry.istio.io" "Telemetry" ["v1", "v1alpha1"], true, true, true;
    WasmPlugin(wasm_plugin::WasmPlugin) = "extensions.istio.io" "WasmPlugin" ["v1alpha1"], true, true, true;
    GatewayClass(gateway_api::GatewayClass) = "gateway.networking.k8s.io" "GatewayClass" ["v1", "v1beta1"], false, true, true;
    KubernetesGateway(gateway_api::Gateway) = "gateway.networking.k8s.io" "Gateway" ["v1", "v1beta1"], true, true, true;
    ListenerSet(gateway_api::ListenerSet) = "gateway.networking.k8s.io" "ListenerSet" ["v1"], true, true, true;
    HttpRoute(http_route::HttpRoute) = "gateway.networking.k8s.io" "HTTPRoute" ["v1", "v1beta1"], true, true, true;
    GrpcRoute(grpc_route::GrpcRoute) = "gateway.networking.k8s.io" "GRPCRoute" ["v1", "v1alpha2"], true, true, true;
    TlsRoute(stream_route::TlsRoute) = "gateway.networking.k8s.io" "TLSRoute" ["v1", "v1alpha2", "v1alpha3"], true, true, true;
    TcpRoute(stream_route::TcpRoute) = "gateway.networking.k8s.io" "TCPRoute" ["v1", "v1alpha2"], true, true, true;
    UdpRoute(stream_route::TcpRoute) = "gateway.networking.k8s.io" "UDPRoute" ["v1", "v1alpha2"], true, true, true;
    ReferenceGrant(reference_grant::ReferenceGrant) = "gateway.networking.k8s.io" "ReferenceGrant" ["v1", "v1beta1", "v1alpha2"], true, true, true;
    BackendTlsPolicy(backend_tls_policy::BackendTlsPolicy) = "gateway.networking.k8s.io" "BackendTLSPolicy" ["v1", "v1alpha3"], true, true, true;
    Service(kubernetes::Service) = "" "Service" ["v1"], true, true, false;
    Pod(kubernetes::Pod) = "" "Pod" ["v1"], true, true, false;
    Endpoints(kubernetes::Endpoints) = "" "Endpoints" ["v1"], true, false, false;
    EndpointSlice(kubernetes::EndpointSlice) = "discovery.k8s.io" "EndpointSlice" ["v1", "v1beta1"], true, false, false;
    Namespace(kubernetes::Bare) = "" "Namespace" ["v1"], false, true, false;
    ServiceAccount(kubernetes::Bare) = "" "ServiceAccount" ["v1"], true, false, false;
    Node(kubernetes::Bare) = "" "Node" ["v1"], false, true, false;
    ConfigMap(kubernetes::ConfigMap) = "" "ConfigMap" ["v1"], true, false, false;
    Secret(kubernetes::Secret) = "" "Secret" ["v1"], true, false, false;
    Deployment(kubernetes::PodController) = "apps" "Deployment" ["v1"], true, true, false;
    StatefulSet(kubernetes::PodController) = "apps" "StatefulSet" ["v1"], true, true, false;
    DaemonSet(kubernetes::PodController) = "apps" "DaemonSet" ["v1"], true, true, false;
    ReplicaSet(kubernetes::PodController) = "apps" "ReplicaSet" ["v1"], true, true, false;
    Job(kubernetes::PodController) = "batch" "Job" ["v1"], true, true, false;
    CustomResourceDefinition(kubernetes::CustomResourceDefinition) = "apiextensions.k8s.io" "CustomResourceDefinition" ["v1"], false, true, false;
    MutatingWebhookConfiguration(kubernetes::WebhookConfiguration) = "admissionregistration.k8s.io" "MutatingWebhookConfiguration" ["v1"], false, false, false;
    ValidatingWebhookConfiguration(kubernetes::WebhookConfiguration) = "admissionregistration.k8s.io" "ValidatingWebhookConfiguration" ["v1"], false, false, false;
}

typed! {
    VirtualService(virtual_service::VirtualService);
    DestinationRule(destination_rule::DestinationRule);
    Gateway(gateway::Gateway);
    ServiceEntry(service_entry::ServiceEntry);
    Sidecar(sidecar::Sidecar);
    WorkloadEntry(workload_entry::WorkloadEntry);
    WorkloadGroup(workload_group::WorkloadGroup);
    EnvoyFilter(envoy_filter::EnvoyFilter);
    ProxyConfig(proxy_config::ProxyConfig);
    AuthorizationPolicy(authorization_policy::AuthorizationPolicy);
    PeerAuthentication(peer_authentication::PeerAuthentication);
    RequestAuthentication(request_authentication::RequestAuthentication);
    Telemetry(telemetry::Telemetry);
    WasmPlugin(wasm_plugin::WasmPlugin);
    GatewayClass(gateway_api::GatewayClass);
    KubernetesGateway(gateway_api::Gateway);
    ListenerSet(gateway_api::ListenerSet);
    HttpRoute(http_route::HttpRoute);
    GrpcRoute(grpc_route::GrpcRoute);
    TlsRoute(stream_route::TlsRoute);
    TcpRoute(stream_route::TcpRoute);
    ReferenceGrant(reference_grant::ReferenceGrant);
    BackendTlsPolicy(backend_tls_policy::BackendTlsPolicy);
    Service(kubernetes::Service);
    Pod(kubernetes::Pod);
    Endpoints(kubernetes::Endpoints);
    EndpointSlice(kubernetes::EndpointSlice);
    ConfigMap(kubernetes::ConfigMap);
    Secret(kubernetes::Secret);
    CustomResourceDefinition(kubernetes::CustomResourceDefinition);
}
