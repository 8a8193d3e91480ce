//! Clusters: one per visible service, port and subset, one per port of the proxy's own workload, and those for what no
//! service tells of.

mod balancing;
mod inbound;
mod pool;
mod tls;

use std::collections::HashMap;

use prost::Name;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, DnsLookupFamily,
    EdsClusterConfig, LbPolicy,
};
use xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, Metadata, TypedExtensionConfig,
};
use xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
use xds::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use xds::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};

use super::endpoints::{Audience, Endpoint};
use super::index::Index;
use super::proxy::{Proxy, Role};
use super::scope;
use super::service::{Port, Resolution, Service};
use super::{policy, values};
use crate::model::istio::destination_rule::{
    DestinationRule, H2UpgradePolicy, SimpleLb, Subset, TlsMode, TrafficPolicy,
};
use crate::model::istio::gateway::{self, Gateway};
use crate::model::istio::mesh_config::MeshH2UpgradePolicy;
use crate::model::protocol::Protocol;
use crate::model::workloads::{Labels, selects};
use crate::model::{Found, Mesh};

/// Every cluster of a proxy.
#[cfg(test)]
fn clusters(mesh: &Index, proxy: &Proxy) -> Vec<Cluster> {
    let mut clusters = outbound(mesh, proxy);
    clusters.extend(own(mesh, proxy));
    clusters
}

/// The clusters of what a proxy connects to, by name. Aliases have none.
pub fn outbound(mesh: &Index, proxy: &Proxy) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    let carries = carries_tls(mesh, proxy);
    for service in scope::services(mesh, proxy) {
        if service.resolution == Resolution::Alias {
            continue;
        }
        let rule = policy::rule(mesh, proxy, &service);
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let outbound = Outbound { mesh, proxy, service: &service, port, rule, carried: false };
            outbound.all(&mut clusters);
            if carries && !service.external {
                Outbound { carried: true, ..outbound }.all(&mut clusters);
            }
        }
    }
    clusters.push(black_hole(mesh));
    if proxy.role == Role::Sidecar {
        clusters.push(passthrough(mesh, "PassthroughCluster"));
    }
    clusters
}

/// The clusters of a proxy's own workload.
pub fn own(mesh: &Index, proxy: &Proxy) -> Vec<Cluster> {
    match proxy.role {
        Role::Sidecar => inbound::clusters(mesh, proxy),
        Role::Router => Vec::new(),
    }
}

/// The name of a service's cluster: `outbound|PORT|SUBSET|HOST`.
pub fn outbound_name(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The name that a client of the mesh gives in TLS for the same.
pub fn outbound_sni(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// Whether a gateway hands TLS on as it is, to where the name asked for tells (`AUTO_PASSTHROUGH`).
fn carries_tls(mesh: &Mesh, proxy: &Proxy) -> bool {
    let carries = |gateway: &Gateway| {
        let modes = gateway.servers.iter().filter_map(|it| it.tls.as_ref()).map(|it| it.mode);
        selects(&gateway.selector, &proxy.labels)
            && modes.into_iter().any(|mode| mode == gateway::TlsMode::AutoPassthrough)
    };
    proxy.role == Role::Router && mesh.all::<Gateway>().any(|it| carries(it.spec))
}

/// A cluster whose protocol is not settled.
pub(in crate::translate) struct Draft {
    cluster: Cluster,
    http: Option<HttpProtocolOptions>,
}

impl Draft {
    fn new(name: &str, mesh: &Mesh, kind: DiscoveryType) -> Self {
        let cluster = Cluster {
            name: name.to_owned(),
            alt_stat_name: format!("{name};"),
            connect_timeout: Some(values::duration(mesh.config.connect_timeout)),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
            ..Cluster::default()
        };
        Self { cluster, http: None }
    }

    fn is(&self, kind: DiscoveryType) -> bool {
        self.cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(kind.into()))
    }

    fn set_type(&mut self, kind: DiscoveryType) {
        self.cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    }

    fn http(&mut self) -> &mut HttpProtocolOptions {
        self.http.get_or_insert_default()
    }

    fn is_http2(&self) -> bool {
        let options = self.http.as_ref().and_then(|it| it.upstream_protocol_options.as_ref());
        matches!(
            options,
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(_)),
            }))
        )
    }

    /// HTTP/2, unless something else is settled.
    fn speak_http2(&mut self) {
        self.http().upstream_protocol_options.get_or_insert_with(|| {
            UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                    Http2ProtocolOptions::default(),
                )),
            })
        });
    }

    /// What the client speaks.
    fn speak_as_client(&mut self) {
        let both = UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(Http2ProtocolOptions::default()),
        };
        self.http().upstream_protocol_options =
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(both));
    }

    fn speak(&mut self, protocol: Protocol, role: Role) {
        match protocol {
            Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => self.speak_http2(),
            Protocol::Unknown if role == Role::Sidecar => self.speak_as_client(),
            _ => {}
        }
    }

    /// The fields of the metadata `istio`.
    fn istio(&mut self) -> &mut prost_types::Struct {
        let metadata = self.cluster.metadata.get_or_insert_with(Metadata::default);
        metadata.filter_metadata.entry("istio".to_owned()).or_default()
    }

    fn add_services<'s>(&mut self, services: impl Iterator<Item = &'s Service>) {
        let services = services.map(|service| {
            values::nested(values::fields([
                ("name", values::text(&service.name)),
                ("namespace", values::text(service.namespace())),
                ("host", values::text(&service.host)),
            ]))
        });
        let services: Vec<_> = services.collect();
        if services.is_empty() {
            return;
        }
        let services = values::list(services);
        self.istio().fields.insert("services".to_owned(), services);
    }

    fn add_rule(&mut self, rule: &Found<'_, DestinationRule>) {
        let config = format!(
            "/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}",
            rule.namespace(),
            rule.name()
        );
        self.istio().fields.insert("config".to_owned(), values::text(config));
    }

    fn finish(mut self) -> Cluster {
        if let Some(mut options) = self.http {
            options.upstream_protocol_options.get_or_insert_with(|| {
                UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                    protocol_config: Some(ProtocolConfig::HttpProtocolOptions(
                        Http1ProtocolOptions::default(),
                    )),
                })
            });
            self.cluster.typed_extension_protocol_options =
                HashMap::from([(HttpProtocolOptions::full_name(), values::any(&options))]);
        }
        self.cluster
    }
}

/// One port of a service, as a proxy connects to it.
struct Outbound<'a> {
    mesh: &'a Index,
    proxy: &'a Proxy,
    service: &'a Service,
    port: &'a Port,
    rule: Option<Found<'a, DestinationRule>>,
    /// Whether it is for TLS that is handed on as it is.
    carried: bool,
}

impl Outbound<'_> {
    /// The cluster of the port, and one for each subset.
    fn all(&self, clusters: &mut Vec<Cluster>) {
        let endpoints = self.mesh.endpoints(self.service, self.port);
        let whole = self.rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
        let policy = policy::for_port(whole, self.port.number);
        clusters.extend(self.cluster(None, policy.as_ref(), endpoints));
        for subset in self.rule.iter().flat_map(|rule| &rule.spec.subsets) {
            let own = subset.traffic_policy.as_ref();
            let policy = policy::for_subset(policy.clone(), own, self.port.number);
            clusters.extend(self.cluster(Some(subset), policy.as_ref(), endpoints));
        }
    }

    fn cluster(
        &self,
        subset: Option<&Subset>,
        policy: Option<&TrafficPolicy>,
        endpoints: &[Endpoint],
    ) -> Option<Cluster> {
        let subset_name = subset.map(|it| it.name.as_str()).unwrap_or_default();
        let sni = outbound_sni(self.port.number, subset_name, &self.service.host);
        let name = if self.carried {
            sni.clone()
        } else {
            outbound_name(self.port.number, subset_name, &self.service.host)
        };
        if self.service.resolution == Resolution::DynamicDns {
            return (subset.is_none() && !self.carried).then(|| self.by_request(&name, policy));
        }
        let mut draft = Draft::new(&name, self.mesh, self.discovery());
        draft.cluster.common_lb_config = Some(CommonLbConfig::default());
        let of_balancer = policy.and_then(|it| it.load_balancer.as_ref());
        if of_balancer.is_some_and(|it| it.simple == Some(SimpleLb::Passthrough)) {
            draft.set_type(DiscoveryType::OriginalDst);
        }
        if matches!(self.service.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
            && !draft.is(DiscoveryType::OriginalDst)
        {
            let all = Labels::new();
            let labels = subset.map_or(&all, |it| &it.labels);
            self.resolve_names(&mut draft.cluster, policy, endpoints, labels)?;
        }
        draft.speak(self.port.protocol, self.proxy.role);
        draft.add_services(std::iter::once(self.service));
        pool::apply(&mut draft, policy, pool::Side::Client);
        self.apply_settings(&mut draft, policy);
        balancing::apply(&mut draft, self, policy);
        if !self.carried {
            tls::apply(&mut draft, self, policy, endpoints, &sni);
        }
        if draft.is(DiscoveryType::Eds) {
            draft.cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(values::ads()), service_name: name });
        }
        self.note(&mut draft, policy, subset);
        Some(draft.finish())
    }

    /// The cluster of a service whose hosts only requests name.
    fn by_request(&self, name: &str, policy: Option<&TrafficPolicy>) -> Cluster {
        let mut draft = Draft::new(name, self.mesh, DiscoveryType::Static);
        draft.speak(self.port.protocol, self.proxy.role);
        pool::apply(&mut draft, policy, pool::Side::Client);
        let cache = DnsCacheConfig {
            name: format!("{}_dfp_dns_cache", self.service.host),
            dns_lookup_family: DnsLookupFamily::V4Only.into(),
            ..DnsCacheConfig::default()
        };
        let config = ClusterConfig {
            cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
                cache,
            )),
            ..ClusterConfig::default()
        };
        let kind = CustomClusterType {
            name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
            typed_config: Some(values::any(&config)),
        };
        draft.cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(kind));
        draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
        self.note(&mut draft, policy, None);
        draft.finish()
    }

    /// What the mesh's settings say where no rule says anything.
    fn apply_settings(&self, draft: &mut Draft, policy: Option<&TrafficPolicy>) {
        let config = &self.mesh.config;
        let own = policy.and_then(|it| it.connection_pool.as_ref());
        if let Some(keepalive) = &config.tcp_keepalive
            && own.and_then(|it| it.tcp.as_ref()).is_none_or(|it| it.tcp_keepalive.is_none())
        {
            pool::keep_alive(draft, keepalive);
        }
        let http = own.and_then(|it| it.http.as_ref());
        let undecided = http.is_none_or(|it| {
            it.h2_upgrade_policy == H2UpgradePolicy::Default && !it.use_client_protocol
        });
        let upgrades = config.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade;
        if upgrades && undecided && self.port.protocol == Protocol::Http && !self.carried {
            draft.speak_http2();
        }
    }

    fn discovery(&self) -> DiscoveryType {
        match self.service.resolution {
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
            // A gateway is connected to itself: nobody has chosen an address.
            Resolution::Passthrough if self.proxy.role == Role::Sidecar => {
                DiscoveryType::OriginalDst
            }
            _ => DiscoveryType::Eds,
        }
    }

    /// Names are resolved by the proxy; none if there are no names.
    fn resolve_names(
        &self,
        cluster: &mut Cluster,
        policy: Option<&TrafficPolicy>,
        endpoints: &[Endpoint],
        labels: &Labels,
    ) -> Option<()> {
        let audience =
            Audience { mesh: self.mesh, proxy: self.proxy, service: self.service, policy };
        let assignment = audience.assignment(&cluster.name, endpoints, labels);
        if assignment.endpoints.is_empty() {
            return None;
        }
        cluster.load_assignment = Some(assignment);
        cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
        cluster.dns_refresh_rate = Some(values::duration(self.mesh.config.dns_refresh_rate));
        cluster.dns_jitter = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
        cluster.respect_dns_ttl = true;
        let resolver = CaresDnsResolverConfig {
            udp_max_queries: Some(100),
            ..CaresDnsResolverConfig::default()
        };
        cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
            name: "envoy.network.dns_resolver.cares".to_owned(),
            typed_config: Some(values::any(&resolver)),
        });
        Some(())
    }

    /// What telemetry and people want to know of a cluster.
    fn note(&self, draft: &mut Draft, policy: Option<&TrafficPolicy>, subset: Option<&Subset>) {
        let yes = prost_types::value::Kind::BoolValue(true);
        if self.service.external && subset.is_none() {
            let value = prost_types::Value { kind: Some(yes) };
            draft.istio().fields.insert("external".to_owned(), value);
        }
        let Some(rule) = &self.rule else { return };
        draft.add_rule(rule);
        if let Some(subset) = subset {
            draft.istio().fields.insert("subset".to_owned(), values::text(&subset.name));
        }
        let mode = policy.and_then(|it| it.tls.as_ref()).map(|it| it.mode);
        if matches!(mode, Some(TlsMode::Simple | TlsMode::Mutual)) {
            draft.istio().fields.insert("alpn_override".to_owned(), values::text("false"));
        }
    }
}

/// Where requests end that go nowhere.
fn black_hole(mesh: &Mesh) -> Cluster {
    Draft::new("BlackHoleCluster", mesh, DiscoveryType::Static).finish()
}

/// Where requests go that no service is known for: to the address that the client chose.
fn passthrough(mesh: &Mesh, name: &str) -> Cluster {
    let mut draft = Draft::new(name, mesh, DiscoveryType::OriginalDst);
    draft.cluster.alt_stat_name = "PassthroughCluster;".to_owned();
    draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
    pool::apply(&mut draft, None, pool::Side::Client);
    draft.speak_as_client();
    let options = draft.http().common_http_protocol_options.get_or_insert_default();
    options.idle_timeout = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    draft.finish()
}

#[cfg(test)]
mod tests;
