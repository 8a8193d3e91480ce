//! The kinds of resources: their type URLs, the methods that carry them, and the order in which they are pushed.

use std::fmt;

/// A kind of resource. The order is the one of a push that makes before it breaks ("Eventual consistency
/// considerations"): what is referred to comes before what refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS: the endpoints of one cluster.
    Endpoints,
    /// SDS.
    Secret,
    /// LDS.
    Listener,
    /// ECDS: the configuration of one filter.
    ExtensionConfig,
    /// RDS: one route table.
    Routes,
    /// VHDS: one virtual host of a route table.
    VirtualHost,
}

/// The two variants of the transport protocol ("Four Variants").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// A request says everything that is wanted; a response of clusters or listeners holds all of them.
    StateOfTheWorld,
    /// Both say only what has changed.
    Incremental,
}

impl ResourceType {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Secret,
        Self::Listener,
        Self::ExtensionConfig,
        Self::Routes,
        Self::VirtualHost,
    ];

    /// Its type URL.
    pub const fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::ExtensionConfig => {
                "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
            }
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// The kind with this type URL.
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Whether a state-of-the-world response holds all resources of the kind, so that one left out is removed
    /// ("Grouping Resources into Responses", "Deleting Resources").
    pub const fn is_full_state(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether a first request without names asks for everything ("How the client specifies what resources to
    /// return"). Elsewhere it asks for nothing: an Envoy that knows no cluster yet sends it for endpoints.
    pub const fn has_wildcard(self) -> bool {
        self.is_full_state()
    }

    /// The path of the method that streams this kind alone. Virtual hosts are incremental in any case.
    pub const fn method(self, variant: Variant) -> &'static str {
        use Variant::{Incremental, StateOfTheWorld};
        match (self, variant) {
            (Self::Cluster, StateOfTheWorld) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
            }
            (Self::Cluster, Incremental) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
            }
            (Self::Endpoints, StateOfTheWorld) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            (Self::Endpoints, Incremental) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
            }
            (Self::Secret, StateOfTheWorld) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
            }
            (Self::Secret, Incremental) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
            }
            (Self::Listener, StateOfTheWorld) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
            }
            (Self::Listener, Incremental) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
            }
            (Self::ExtensionConfig, StateOfTheWorld) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
            }
            (Self::ExtensionConfig, Incremental) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
            }
            (Self::Routes, StateOfTheWorld) => {
                "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
            }
            (Self::Routes, Incremental) => {
                "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes"
            }
            (Self::VirtualHost, _) => {
                "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"
            }
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Secret => "SDS",
            Self::Listener => "LDS",
            Self::ExtensionConfig => "ECDS",
            Self::Routes => "RDS",
            Self::VirtualHost => "VHDS",
        })
    }
}

impl Variant {
    /// The path of the method that streams all kinds together ("Aggregated Discovery Service").
    pub const fn aggregated_method(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            Self::Incremental => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ResourceType, Variant};
    use crate::DESCRIPTOR_POOL;

    #[test]
    fn every_kind_is_a_message_of_ours_with_its_name_in_the_first_field() {
        for kind in ResourceType::ALL {
            let name = kind.url().strip_prefix("type.googleapis.com/").unwrap();
            let message = DESCRIPTOR_POOL.get_message_by_name(name).expect(name);
            let field = message.get_field(1).expect(name);
            let expected = if kind == ResourceType::Endpoints { "cluster_name" } else { "name" };
            assert_eq!(field.name(), expected, "{name}");
            assert_eq!(ResourceType::of(kind.url()), Some(kind));
        }
        assert!(ResourceType::ALL.is_sorted());
        assert_eq!(ResourceType::of("type.googleapis.com/istio.networking.nds.v1.NameTable"), None);
    }

    #[test]
    fn every_method_exists_and_speaks_its_variant() {
        let expect = |path: &str, variant: Variant| {
            let (service, name) = path[1..].split_once('/').unwrap();
            let service = DESCRIPTOR_POOL.get_service_by_name(service).expect(path);
            let method = service.methods().find(|method| method.name() == name).expect(path);
            assert!(method.is_client_streaming() && method.is_server_streaming(), "{path}");
            let incremental = method.input().name() == "DeltaDiscoveryRequest";
            assert_eq!(incremental, variant == Variant::Incremental, "{path}");
        };
        for variant in [Variant::StateOfTheWorld, Variant::Incremental] {
            expect(variant.aggregated_method(), variant);
            for kind in ResourceType::ALL {
                if kind != ResourceType::VirtualHost || variant == Variant::Incremental {
                    expect(kind.method(variant), variant);
                }
            }
        }
    }
}
