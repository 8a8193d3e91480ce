//! One reading of every statistic, with what is needed to print it as Envoy does.

mod filter_scope;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::cell::Distribution;
use super::rbac;
use crate::config::rbac::StatScope;

pub use filter_scope::{FilterScope, FilterStatistics};

/// Begins the names of what Istio's agent counts.
pub(super) const AGENT: &str = "istio_agent.";
/// The label of a connection manager's stat prefix.
pub(super) const HTTP: &str = "envoy_http_conn_manager_prefix";

/// Whose statistic it is: becomes the first part of the name in `/stats` and the labels in Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The process; the name says the rest.
    Root,
    /// `cluster.NAME.`
    Cluster(Arc<str>),
    /// `cluster_manager.cds.`
    Cds,
    /// `dns_cache.NAME.`
    DnsCache(Arc<str>),
    /// `http.PREFIX.`
    Http(Arc<str>),
    /// `http.PREFIX.rds.TABLE.`
    Rds(Arc<str>, Arc<str>),
    /// `listener.ADDRESS.`
    Listener(Arc<str>),
    /// `listener.ADDRESS.worker_N.`
    ListenerWorker(Arc<str>, Arc<str>),
    /// `tls_inspector.`
    TlsInspector,
    /// `http_inspector.`
    HttpInspector,
    /// `proxy_proto.PREFIX.`; an empty prefix has no dot either.
    ProxyProtocol(Arc<str>),
    /// `proxy_proto.PREFIX.versions.vN.`
    ProxyProtocolVersion(Arc<str>, &'static str),
    /// `listener_manager.lds.`
    Lds,
    /// `sds.NAME.`
    Sds(Arc<str>),
    /// `tcp.PREFIX.`
    Tcp(Arc<str>),
    /// `connection_limit.PREFIX.`
    ConnectionLimit(Arc<str>),
    /// `http.MANAGER.stateful_session.PREFIX.`, or `stateful_session.PREFIX.` without a manager.
    Session(Arc<str>, Arc<str>),
    /// `http.PREFIX.cors.`
    Cors(Arc<str>),
    /// What an HTTP filter counts.
    Filter(FilterScope),
    /// `http.PREFIX.rbac.` and the like.
    Rbac(StatScope),
    /// `access_logs.open_telemetry_access_log.[PREFIX.]`
    AccessLog(Arc<str>),
    /// `overload.MONITOR.`
    Overload(Arc<str>),
    /// `istio_agent.VALUE.`: in Prometheus `istio_agent_`, with this label. Istio's agent has these, not Envoy.
    Agent(&'static str, &'static str),
}

impl Scope {
    /// The scope of the cluster with this stat name.
    pub fn cluster(name: &str) -> Self {
        Self::Cluster(sanitized(name))
    }

    /// The scope of the cache of names called `name`.
    pub fn dns_cache(name: &str) -> Self {
        Self::DnsCache(sanitized(name))
    }

    /// The scope of connection managers with this stat prefix.
    pub fn http(prefix: &str) -> Self {
        Self::Http(sanitized(prefix))
    }

    /// The scope of the route table `table` discovered for connection managers with this stat prefix.
    pub fn rds(prefix: &str, table: &str) -> Self {
        Self::Rds(sanitized(prefix), sanitized(table))
    }

    /// The scope of the listener with this stat prefix or address.
    pub fn listener(prefix: &str) -> Self {
        Self::Listener(sanitized(prefix))
    }

    /// The scope of the listener with this stat prefix or address on one worker.
    pub fn listener_worker(prefix: &str, id: usize) -> Self {
        Self::ListenerWorker(sanitized(prefix), id.to_string().into())
    }

    /// The scopes of PROXY filters with this stat prefix: its own, and those of both versions.
    pub fn proxy_protocol(prefix: &str) -> [Self; 3] {
        let prefix = sanitized(prefix);
        let version = |version| Self::ProxyProtocolVersion(Arc::clone(&prefix), version);
        [Self::ProxyProtocol(Arc::clone(&prefix)), version("1"), version("2")]
    }

    /// The scope of the discovered secret `name`.
    pub fn sds(name: &str) -> Self {
        Self::Sds(sanitized(name))
    }

    /// The scope of TCP proxies with this stat prefix.
    pub fn tcp(prefix: &str) -> Self {
        Self::Tcp(sanitized(prefix))
    }

    /// The scope of access logs in OTLP with this stat prefix, which may be empty.
    pub fn access_log(prefix: &str) -> Self {
        Self::AccessLog(sanitized(prefix))
    }

    /// The scope of connection limits with this stat prefix.
    pub fn connection_limit(prefix: &str) -> Self {
        Self::ConnectionLimit(sanitized(prefix))
    }

    /// The scope of sessions with this stat prefix, of connection managers with theirs; theirs is empty for what
    /// routes say.
    pub fn session(manager: &str, prefix: &str) -> Self {
        Self::Session(sanitized(manager), sanitized(prefix))
    }

    /// The scope of `cors` filters of connection managers with this stat prefix.
    pub fn cors(prefix: &str) -> Self {
        Self::Cors(sanitized(prefix))
    }

    /// The scope of policies.
    pub fn rbac(scope: &StatScope) -> Self {
        let StatScope { owner, is_http, prefix, part } = scope;
        Self::Rbac(StatScope {
            owner: sanitized(owner),
            is_http: *is_http,
            prefix: sanitized(prefix),
            part: part.clone(),
        })
    }

    /// The scope of the resource monitor with this name.
    pub fn overload(monitor: &str) -> Self {
        Self::Overload(sanitized(monitor))
    }

    /// The Prometheus name of the scope, without `envoy_`, and its labels.
    pub(super) fn family(&self) -> (Cow<'static, str>, AllLabels<'_>) {
        const CLUSTER: &str = "envoy_cluster_name";
        let proxy = |prefix| {
            Some(("envoy_proxy_protocol_prefix", prefix)).filter(|_| !str::is_empty(prefix))
        };
        let (name, labels): (_, Labels<'_>) = match self {
            Self::Root => ("", [None, None]),
            Self::Cluster(name) => ("cluster.", [Some((CLUSTER, name)), None]),
            Self::Cds => ("cluster_manager.cds.", [None, None]),
            Self::DnsCache(name) => ("dns_cache.", [Some(("envoy_dns_cache", name)), None]),
            Self::Http(prefix) => ("http.", [Some((HTTP, prefix)), None]),
            Self::Rds(prefix, table) => {
                ("http.rds.", [Some(("envoy_rds_route_config", table)), Some((HTTP, prefix))])
            }
            Self::Listener(address) => {
                ("listener.", [Some(("envoy_listener_address", address)), None])
            }
            Self::ListenerWorker(address, id) => {
                let labels = [("envoy_worker_id", &**id), ("envoy_listener_address", address)];
                ("listener.worker.", labels.map(Some))
            }
            Self::TlsInspector => ("tls_inspector.", [None, None]),
            Self::HttpInspector => ("http_inspector.", [None, None]),
            Self::ProxyProtocol(prefix) => ("proxy_proto.", [proxy(prefix), None]),
            Self::ProxyProtocolVersion(prefix, version) => {
                ("proxy_proto.", [proxy(prefix), Some(("envoy_proxy_protocol_version", version))])
            }
            Self::Agent(label, value) => (AGENT, [Some((*label, *value)), None]),
            Self::Lds => ("listener_manager.lds.", [None, None]),
            Self::Sds(name) => ("sds.", [Some(("envoy_xds_resource_name", name)), None]),
            Self::Tcp(prefix) => ("tcp.", [Some(("envoy_tcp_prefix", prefix)), None]),
            Self::ConnectionLimit(prefix) => {
                ("connection_limit.", [Some(("envoy_connection_limit_prefix", prefix)), None])
            }
            Self::Cors(prefix) => ("http.cors.", [Some((HTTP, prefix)), None]),
            Self::Filter(scope) => {
                return scope.family();
            }
            Self::AccessLog(prefix) => {
                let prefix = Dotted(prefix);
                let name = format!("access_logs.open_telemetry_access_log.{prefix}");
                return (name.into(), AllLabels::new());
            }
            // Envoy makes no label of these.
            Self::Overload(monitor) => {
                return (format!("overload.{monitor}.").into(), AllLabels::new());
            }
            Self::Rbac(scope) => return rbac::family(scope),
            Self::Session(manager, prefix) if manager.is_empty() => {
                return (format!("stateful_session.{prefix}.").into(), AllLabels::new());
            }
            Self::Session(manager, prefix) => {
                let name = format!("http.stateful_session.{prefix}.");
                return (name.into(), smallvec![(HTTP, &**manager)]);
            }
        };
        (name.into(), labels.into_iter().flatten().collect())
    }
}

/// Name and value.
pub(super) type Label<'a> = (&'static str, &'a str);
/// At most two of them.
type Labels<'a> = [Option<Label<'a>>; 2];
/// Seldom more than two.
pub(super) type AllLabels<'a> = SmallVec<[Label<'a>; 2]>;

/// What stands before a statistic's own name in `/stats`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Cluster(name) => write!(f, "cluster.{name}."),
            Self::Cds => f.write_str("cluster_manager.cds."),
            Self::DnsCache(name) => write!(f, "dns_cache.{name}."),
            Self::Http(prefix) => write!(f, "http.{prefix}."),
            Self::Rds(prefix, table) => write!(f, "http.{prefix}.rds.{table}."),
            Self::Listener(address) => write!(f, "listener.{address}."),
            Self::ListenerWorker(address, id) => write!(f, "listener.{address}.worker_{id}."),
            Self::TlsInspector => f.write_str("tls_inspector."),
            Self::HttpInspector => f.write_str("http_inspector."),
            Self::ProxyProtocol(prefix) => write!(f, "proxy_proto.{}", Dotted(prefix)),
            Self::ProxyProtocolVersion(prefix, version) => {
                write!(f, "proxy_proto.{}versions.v{version}.", Dotted(prefix))
            }
            Self::Lds => f.write_str("listener_manager.lds."),
            Self::Sds(name) => write!(f, "sds.{name}."),
            Self::Tcp(prefix) => write!(f, "tcp.{prefix}."),
            Self::ConnectionLimit(prefix) => write!(f, "connection_limit.{prefix}."),
            Self::Cors(prefix) => write!(f, "http.{prefix}.cors."),
            Self::Filter(scope) => scope.fmt(f),
            Self::AccessLog(prefix) => {
                write!(f, "access_logs.open_telemetry_access_log.{}", Dotted(prefix))
            }
            Self::Overload(monitor) => write!(f, "overload.{monitor}."),
            Self::Agent(_, value) => write!(f, "{AGENT}{value}."),
            Self::Rbac(scope) => rbac::write(scope, f),
            Self::Session(manager, prefix) if manager.is_empty() => {
                write!(f, "stateful_session.{prefix}.")
            }
            Self::Session(manager, prefix) => {
                write!(f, "http.{manager}.stateful_session.{prefix}.")
            }
        }
    }
}

/// A part of a name and its dot, or neither.
struct Dotted<'a>(&'a str);

impl fmt::Display for Dotted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}.", self.0) }
    }
}

/// A name as it may stand in a statistic: Envoy turns `://`, `:/`, `:` and NUL into `_`.
fn sanitized(name: &str) -> Arc<str> {
    if name.contains([':', '\0']) {
        name.replace("://", "_").replace(":/", "_").replace([':', '\0'], "_").into()
    } else {
        name.into()
    }
}

/// Which of a statistic's several numbers a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// It has only one.
    None,
    /// Responses with this status.
    Code(u16),
    /// Responses of this class, 1 to 5.
    Class(u16),
    /// All responses.
    Completed,
}

/// A reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(i64),
    /// A distribution.
    Histogram(Box<Distribution>),
}

/// A statistic's identity while it is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    /// Whose it is.
    pub(super) scope: &'a Scope,
    /// Its own name.
    pub(super) name: &'static str,
    /// What it means, in one line.
    pub(super) help: &'static str,
}

/// One reading of one statistic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Whose it is.
    pub scope: Scope,
    /// Its own name, such as `upstream_rq_total`.
    pub name: &'static str,
    /// What it means, in one line; empty if Envoy's documentation is all there is.
    pub help: &'static str,
    /// Which of its numbers.
    pub tag: Tag,
    /// The reading.
    pub value: Value,
    /// Whether it was ever written.
    pub used: bool,
}

/// The name in `/stats`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scope, self.name)?;
        match self.tag {
            Tag::None => Ok(()),
            Tag::Code(code) => write!(f, "_{code}"),
            Tag::Class(class) => write!(f, "_{class}xx"),
            Tag::Completed => f.write_str("_completed"),
        }
    }
}

/// Readings being gathered.
#[derive(Debug, Default)]
pub struct Samples {
    all: Vec<Sample>,
}

impl Samples {
    /// Adds the reading of a counter.
    pub fn counter(&mut self, scope: &Scope, name: &'static str, value: u64) {
        let name = Name { scope, name, help: "" };
        self.push(name, Tag::None, Value::Counter(value), value != 0);
    }

    /// Adds the reading of a gauge.
    pub fn gauge(&mut self, scope: &Scope, name: &'static str, value: i64) {
        self.push(Name { scope, name, help: "" }, Tag::None, Value::Gauge(value), true);
    }

    pub(super) fn push(&mut self, name: Name<'_>, tag: Tag, value: Value, used: bool) {
        let Name { scope, name, help } = name;
        self.all.push(Sample { scope: scope.clone(), name, help, tag, value, used });
    }

    /// Sum of the gauges called `name` in all scopes that `of` takes.
    pub(super) fn gauge_total(&self, name: &str, of: impl Fn(&Scope) -> bool) -> i64 {
        let named = self.all.iter().filter(|sample| sample.name == name && of(&sample.scope));
        named.map(|sample| if let Value::Gauge(value) = sample.value { value } else { 0 }).sum()
    }

    pub(super) fn into_vec(self) -> Vec<Sample> {
        self.all
    }
}
