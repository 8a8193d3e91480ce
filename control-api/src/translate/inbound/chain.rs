//! The filter chains of one port, or of all ports that nothing is known of: one per kind of connection that the
//! workload's `PeerAuthentication` lets in.

use xds::envoy::config::core::v3::{Metadata, TransportSocket};
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use super::{PORT, http};
use crate::model::Mesh;
use crate::model::istio::gateway::ServerTlsSettings;
use crate::model::istio::peer_authentication::Mode;
use crate::model::protocol::Protocol;
use crate::translate::peer::Demand;
use crate::translate::proxy::Proxy;
use crate::translate::telemetry::{self, Class};
use crate::translate::{secrets, security, values};

/// What clients of the mesh offer for HTTP, for anything, and what clients without TLS turn out to speak.
const MESH_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const MESH_TCP: &[&str] = &["istio-peer-exchange", "istio"];
const MESH_ANY: &[&str] =
    &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];
/// Where connections go that nothing is known of.
pub(super) const PASSTHROUGH: &str = "InboundPassthroughCluster";
const BLACK_HOLE: &str = "BlackHoleCluster";

/// A port of the workload.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// What the workload listens on; 0 for all others.
    pub target: u32,
    /// What its service calls it.
    pub number: u32,
    pub protocol: Protocol,
    /// Its service's name, or that of the `Sidecar` that tells of it.
    pub host: String,
    /// The address that it is listened to at.
    pub bind: String,
    /// Whether it has a listener of its own.
    pub binds: bool,
    /// TLS of its own, where the mesh's is not demanded.
    pub tls: Option<ServerTlsSettings>,
    /// The object that tells of it.
    pub config: Option<String>,
}

impl Chain {
    /// What its listener is called.
    pub(super) fn listener_name(&self) -> String {
        format!("{}_{}", self.bind, self.target)
    }

    fn is_passthrough(&self) -> bool {
        self.host.is_empty()
    }

    pub(super) fn cluster(&self) -> String {
        if self.is_passthrough() {
            PASSTHROUGH.to_owned()
        } else {
            format!("inbound|{}||", self.target)
        }
    }

    fn name(&self, form: Form) -> String {
        match form {
            _ if !self.is_passthrough() => self.listener_name(),
            Form::Http => "virtualInbound-catchall-http".to_owned(),
            Form::Tcp => "virtualInbound".to_owned(),
        }
    }

    pub(super) fn stat_prefix(&self) -> String {
        if self.is_passthrough() {
            format!("{PASSTHROUGH};")
        } else {
            format!("inbound_{};", self.listener_name())
        }
    }
}

/// What a chain takes a connection for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Http,
    Tcp,
}

/// One kind of connection: what it begins with, what it is taken for, whether its TLS ends here.
type Kind = (&'static [&'static str], &'static str, Form, bool);

const TLS: &str = "tls";
const PLAIN: &str = "raw_buffer";

/// The kinds of connections that a port lets in.
fn kinds(protocol: Protocol, mode: Mode) -> &'static [Kind] {
    use Form::{Http, Tcp};
    match (Sniffed::of(protocol), mode) {
        (Sniffed::Http, Mode::Strict) => &[(&[], TLS, Http, true)],
        (Sniffed::Http, Mode::Permissive) => {
            &[(MESH_ANY, TLS, Http, true), (&[], PLAIN, Http, false)]
        }
        (Sniffed::Http, _) => &[(&[], PLAIN, Http, false)],
        (Sniffed::Tcp, Mode::Strict) => &[(&[], TLS, Tcp, true)],
        (Sniffed::Tcp, Mode::Permissive) => {
            &[(MESH_ANY, TLS, Tcp, true), (&[], TLS, Tcp, false), (&[], PLAIN, Tcp, false)]
        }
        (Sniffed::Tcp, _) => &[(&[], PLAIN, Tcp, false)],
        (Sniffed::Either, Mode::Strict) => &[(MESH_HTTP, TLS, Http, true), (&[], TLS, Tcp, true)],
        (Sniffed::Either, Mode::Permissive) => &[
            (MESH_HTTP, TLS, Http, true),
            (PLAIN_HTTP, PLAIN, Http, false),
            (MESH_TCP, TLS, Tcp, true),
            (&[], PLAIN, Tcp, false),
            (&[], TLS, Tcp, false),
        ],
        (Sniffed::Either, _) => &[(PLAIN_HTTP, PLAIN, Http, false), (&[], PLAIN, Tcp, false)],
    }
}

/// What a port's protocol says of its connections.
enum Sniffed {
    Http,
    Tcp,
    /// The first bytes will tell.
    Either,
}

impl Sniffed {
    fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http
            | Protocol::HttpProxy
            | Protocol::Http2
            | Protocol::Grpc
            | Protocol::GrpcWeb => Self::Http,
            Protocol::Unknown => Self::Either,
            _ => Self::Tcp,
        }
    }
}

/// What all chains of a proxy share.
pub(super) struct Context<'a> {
    pub mesh: &'a Mesh,
    pub proxy: &'a Proxy,
    demand: Demand,
    tls: TransportSocket,
    pub policies: Vec<HttpFilter>,
    network_policies: Vec<Filter>,
}

impl<'a> Context<'a> {
    pub(super) fn new(mesh: &'a Mesh, proxy: &'a Proxy, demand: Demand) -> Self {
        Self {
            mesh,
            proxy,
            demand,
            tls: secrets::mesh_server(mesh),
            policies: security::http_filters(mesh, proxy),
            network_policies: security::network_filters(mesh, proxy),
        }
    }

    /// The filter chains of a port.
    pub(super) fn filter_chains(&self, chain: &Chain) -> Vec<FilterChain> {
        let mode = self.demand.on(chain.target);
        if let Some(settings) = chain.tls.as_ref().filter(|_| mode == Mode::Disable) {
            let (form, protocol) = match chain.protocol {
                Protocol::Https => (Form::Http, Protocol::Http),
                protocol if matches!(Sniffed::of(protocol), Sniffed::Http) => {
                    (Form::Http, protocol)
                }
                protocol => (Form::Tcp, protocol),
            };
            let chain = Chain { protocol, ..chain.clone() };
            let mut only = self.filter_chain(&chain, (&[], TLS, form, true));
            only.transport_socket = Some(secrets::file_server(settings));
            return vec![only];
        }
        kinds(chain.protocol, mode).iter().map(|kind| self.filter_chain(chain, *kind)).collect()
    }

    /// The filter chains of ports that nothing is known of, `chains` being those of the others.
    pub(super) fn of_others(&self, chains: &[Chain]) -> Vec<FilterChain> {
        let mut found = vec![self.loop_guard()];
        let ports = self.demand.by_port.keys().copied();
        let unknown = ports.filter(|port| chains.iter().all(|it| it.target != *port));
        for target in [0].into_iter().chain(unknown) {
            let chain = Chain {
                target,
                number: 0,
                protocol: Protocol::Unknown,
                host: String::new(),
                bind: String::new(),
                binds: false,
                tls: None,
                config: None,
            };
            found.extend(self.filter_chains(&chain));
        }
        found
    }

    /// Connections to the very port where they arrive would come back forever.
    fn loop_guard(&self) -> FilterChain {
        let mut filters = telemetry::network_stats(self.mesh, self.proxy, Class::Inbound);
        filters.push(tcp_proxy(&TcpProxy {
            stat_prefix: BLACK_HOLE.to_owned(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(BLACK_HOLE.to_owned())),
            ..TcpProxy::default()
        }));
        FilterChain {
            name: "virtualInbound-blackhole".to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(PORT),
                ..FilterChainMatch::default()
            }),
            filters,
            ..FilterChain::default()
        }
    }

    fn filter_chain(&self, chain: &Chain, kind: Kind) -> FilterChain {
        let (offered, transport, form, ends_tls) = kind;
        let metadata = chain.config.as_ref().map(|config| {
            let fields = values::fields([("config", values::text(config))]);
            Metadata { filter_metadata: [("istio".to_owned(), fields)].into() }
        });
        FilterChain {
            name: chain.name(form),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: (chain.target > 0).then_some(chain.target),
                transport_protocol: transport.to_owned(),
                application_protocols: offered.iter().map(ToString::to_string).collect(),
                ..FilterChainMatch::default()
            }),
            filters: match form {
                Form::Http => vec![http::filter(self, chain)],
                Form::Tcp => self.tcp(chain),
            },
            transport_socket: ends_tls.then(|| self.tls.clone()),
            metadata,
            ..FilterChain::default()
        }
    }

    fn tcp(&self, chain: &Chain) -> Vec<Filter> {
        let cluster = chain.cluster();
        let mut filters = self.network_policies.clone();
        filters.extend(telemetry::network_stats(self.mesh, self.proxy, Class::Inbound));
        if chain.protocol == Protocol::Mongo {
            let mongo = MongoProxy { stat_prefix: cluster.clone(), ..MongoProxy::default() };
            filters.push(values::network_filter("envoy.filters.network.mongo_proxy", &mongo));
        }
        filters.push(tcp_proxy(&TcpProxy {
            stat_prefix: cluster.clone(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
            access_log: telemetry::access_logs(self.mesh, self.proxy, Class::Inbound),
            ..TcpProxy::default()
        }));
        filters
    }
}

fn tcp_proxy(proxy: &TcpProxy) -> Filter {
    values::network_filter("envoy.filters.network.tcp_proxy", proxy)
}
