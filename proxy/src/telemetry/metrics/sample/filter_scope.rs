//! Whose statistics those of HTTP filters are.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use smallvec::smallvec;

use super::{AllLabels, Dotted, HTTP, sanitized};

const CLUSTER: &str = "envoy_cluster_name";
const VIRTUAL_HOST: &str = "envoy_virtual_host";
const GRPC: [&str; 3] = [CLUSTER, "envoy_grpc_bridge_service", "envoy_grpc_bridge_method"];

/// What stands before the names of one filter's statistics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterScope {
    kind: FilterStatistics,
    /// What it is counted by, in the order in which the name has it.
    parts: [Arc<str>; 3],
}

/// Which statistics they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterStatistics {
    /// `http.PREFIX.fault.`
    Fault,
    /// `http.PREFIX.fault.CLUSTER.`
    ClusterFault,
    /// `http.PREFIX.jwt_authn.OWN_PREFIX.`; an empty prefix of its own has no dot either.
    JwtAuthn,
    /// `http.MANAGER.ext_authz.[PREFIX.]`
    ExtAuthz,
    /// `ext_authz.PREFIX.`, of connections.
    NetworkAuthz,
    /// `cluster.NAME.ext_authz.[PREFIX.]`
    ClusterAuthz,
    /// `cluster.NAME.ratelimit.[PREFIX.]`
    ClusterRateLimit,
    /// `http.PREFIX.csrf.`
    Csrf,
    /// `http.MANAGER.compressor.LIBRARY.[DIRECTION.]`
    Compressor,
    /// `http.MANAGER.compressor.LIBRARY.`
    AcceptEncoding,
    /// `http.MANAGER.decompressor.LIBRARY.DIRECTION.`
    Decompressor,
    /// `http.MANAGER.decompressor.LIBRARY.decompressor_library.`
    DecompressionError,
    /// `cluster.NAME.grpc.[SERVICE.METHOD.]`
    Grpc,
    /// `cluster.NAME.grpc-web.[SERVICE.METHOD.]`
    GrpcWeb,
    /// `PREFIX.http_local_rate_limit.`
    LocalRateLimit,
    /// `local_rate_limit.PREFIX.`
    ConnectionRate,
    /// `vhost.HOST.route.PREFIX.`
    Route,
    /// `vhost.HOST.vcluster.NAME.`
    VirtualCluster,
}

impl FilterScope {
    fn new<const N: usize>(kind: FilterStatistics, own: [&str; N]) -> Self {
        let none: Arc<str> = "".into();
        let mut parts = [Arc::clone(&none), Arc::clone(&none), none];
        for (part, own) in parts.iter_mut().zip(own) {
            *part = sanitized(own);
        }
        Self { kind, parts }
    }

    /// Of `fault` filters of connection managers with this stat prefix.
    pub fn fault(prefix: &str) -> Self {
        Self::new(FilterStatistics::Fault, [prefix])
    }

    /// Of the same, for requests of one downstream cluster.
    pub fn cluster_fault(prefix: &str, cluster: &str) -> Self {
        Self::new(FilterStatistics::ClusterFault, [prefix, cluster])
    }

    /// Of `jwt_authn` filters with a prefix of their own, which may be empty, of connection managers with this
    /// stat prefix.
    pub fn jwt_authn(prefix: &str, own: &str) -> Self {
        Self::new(FilterStatistics::JwtAuthn, [prefix, own])
    }

    /// Of `ext_authz` filters with this stat prefix, which may be empty, of connection managers with theirs.
    pub fn ext_authz(manager: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::ExtAuthz, [manager, prefix])
    }

    /// Of network filters `ext_authz` with this stat prefix.
    pub fn network_authz(prefix: &str) -> Self {
        Self::new(FilterStatistics::NetworkAuthz, [prefix])
    }

    /// Of what `ext_authz` filters with this stat prefix decide about requests for one cluster.
    pub fn cluster_authz(cluster: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::ClusterAuthz, [cluster, prefix])
    }

    /// Of what `ratelimit` filters with this stat prefix hear about requests for one cluster.
    pub fn cluster_rate_limit(cluster: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::ClusterRateLimit, [cluster, prefix])
    }

    /// Of `csrf` filters of connection managers with this stat prefix.
    pub fn csrf(prefix: &str) -> Self {
        Self::new(FilterStatistics::Csrf, [prefix])
    }

    /// Of filters that compress or decompress: of a connection manager, a library, and a part, which may be empty.
    pub fn compression(kind: FilterStatistics, parts: [&str; 3]) -> Self {
        Self::new(kind, parts)
    }

    /// Of gRPC calls: of the cluster with this stat name, and of a service and method unless they are empty.
    pub fn grpc(call: [&str; 3]) -> Self {
        Self::new(FilterStatistics::Grpc, call)
    }

    /// The same for calls of browsers.
    pub fn grpc_web(call: [&str; 3]) -> Self {
        Self::new(FilterStatistics::GrpcWeb, call)
    }

    /// Of `local_ratelimit` filters with this stat prefix.
    pub fn local_rate_limit(prefix: &str) -> Self {
        Self::new(FilterStatistics::LocalRateLimit, [prefix])
    }

    /// Of network filters of the same name with this stat prefix.
    pub fn connection_rate(prefix: &str) -> Self {
        Self::new(FilterStatistics::ConnectionRate, [prefix])
    }

    /// Of the routes with this stat prefix in the virtual host of this name.
    pub fn route(host: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::Route, [host, prefix])
    }

    /// Of a virtual cluster of the virtual host of this name.
    pub fn virtual_cluster(host: &str, name: &str) -> Self {
        Self::new(FilterStatistics::VirtualCluster, [host, name])
    }

    /// Which statistics they are.
    pub fn kind(&self) -> FilterStatistics {
        self.kind
    }

    /// The Prometheus name, without `envoy_`, and its labels.
    pub(super) fn family(&self) -> (Cow<'static, str>, AllLabels<'_>) {
        use FilterStatistics as Of;
        let [first, second, third] = &self.parts;
        // Envoy makes no label of the second part of these.
        let dotted = |name: &str| format!("{name}{}", Dotted(second)).into();
        let (name, labels): (_, [&'static str; 3]) = match self.kind {
            Of::Fault => ("http.fault.".into(), [HTTP, "", ""]),
            Of::ClusterFault => {
                ("http.fault.".into(), [HTTP, "envoy_fault_downstream_cluster", ""])
            }
            Of::JwtAuthn => (dotted("http.jwt_authn."), [HTTP, "", ""]),
            Of::ExtAuthz => (dotted("http.ext_authz."), [HTTP, "", ""]),
            Of::NetworkAuthz => ("ext_authz.".into(), ["envoy_ext_authz_prefix", "", ""]),
            Of::ClusterAuthz => (dotted("cluster.ext_authz."), [CLUSTER, "", ""]),
            Of::ClusterRateLimit => (dotted("cluster.ratelimit."), [CLUSTER, "", ""]),
            Of::Csrf => ("http.csrf.".into(), [HTTP, "", ""]),
            Of::Compressor | Of::AcceptEncoding => {
                (format!("http.compressor.{second}.{}", Dotted(third)).into(), [HTTP, "", ""])
            }
            Of::Decompressor | Of::DecompressionError => {
                (format!("http.decompressor.{second}.{}", Dotted(third)).into(), [HTTP, "", ""])
            }
            Of::Grpc => ("cluster.grpc.".into(), GRPC),
            Of::GrpcWeb => ("cluster.grpc-web.".into(), GRPC),
            Of::LocalRateLimit => {
                ("http_local_rate_limit.".into(), ["envoy_local_http_ratelimit_prefix", "", ""])
            }
            Of::ConnectionRate => {
                ("local_rate_limit.".into(), ["envoy_local_ratelimit_prefix", "", ""])
            }
            Of::Route => return host_family(first, "route", "envoy_route", second),
            Of::VirtualCluster => {
                let (name, mut labels) =
                    host_family(first, "vcluster", "envoy_virtual_cluster", second);
                labels.reverse();
                return (name, labels);
            }
        };
        let labels = labels.into_iter().zip([&**first, second, third]).rev();
        (name, labels.filter(|(label, value)| !label.is_empty() && !value.is_empty()).collect())
    }
}

/// The Prometheus name and labels of a part of a virtual host. As Envoy has it, a label ends at the first dot, and
/// the part's own is only found where the host's name has none.
fn host_family<'a>(
    host: &'a str,
    kind: &str,
    label: &'static str,
    part: &'a str,
) -> (Cow<'static, str>, AllLabels<'a>) {
    if let Some((host, rest)) = host.split_once('.') {
        let name = format!("vhost.{rest}.{kind}.{part}.");
        return (name.into(), smallvec![(VIRTUAL_HOST, host)]);
    }
    let (value, rest) = part.split_once('.').unwrap_or((part, ""));
    let name = format!("vhost.{kind}.{}", Dotted(rest));
    (name.into(), smallvec![(VIRTUAL_HOST, host), (label, value)])
}

impl fmt::Display for FilterScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = &self.parts;
        let call = |f: &mut fmt::Formatter<'_>, protocol| match (&**second, &**third) {
            ("", "") => write!(f, "cluster.{first}.{protocol}."),
            _ => write!(f, "cluster.{first}.{protocol}.{second}.{third}."),
        };
        match self.kind {
            FilterStatistics::Csrf => write!(f, "http.{first}.csrf."),
            FilterStatistics::Compressor | FilterStatistics::AcceptEncoding => {
                write!(f, "http.{first}.compressor.{second}.{}", Dotted(third))
            }
            FilterStatistics::Decompressor | FilterStatistics::DecompressionError => {
                write!(f, "http.{first}.decompressor.{second}.{}", Dotted(third))
            }
            FilterStatistics::Grpc => call(f, "grpc"),
            FilterStatistics::GrpcWeb => call(f, "grpc-web"),
            FilterStatistics::Fault => write!(f, "http.{first}.fault."),
            FilterStatistics::ClusterFault => write!(f, "http.{first}.fault.{second}."),
            FilterStatistics::JwtAuthn if second.is_empty() => write!(f, "http.{first}.jwt_authn."),
            FilterStatistics::JwtAuthn => write!(f, "http.{first}.jwt_authn.{second}."),
            FilterStatistics::ExtAuthz => {
                write!(f, "http.{first}.ext_authz.{}", Dotted(second))
            }
            FilterStatistics::NetworkAuthz => write!(f, "ext_authz.{first}."),
            FilterStatistics::ClusterAuthz => {
                write!(f, "cluster.{first}.ext_authz.{}", Dotted(second))
            }
            FilterStatistics::ClusterRateLimit => {
                write!(f, "cluster.{first}.ratelimit.{}", Dotted(second))
            }
            FilterStatistics::LocalRateLimit => write!(f, "{first}.http_local_rate_limit."),
            FilterStatistics::ConnectionRate => write!(f, "local_rate_limit.{first}."),
            FilterStatistics::Route => write!(f, "vhost.{first}.route.{second}."),
            FilterStatistics::VirtualCluster => write!(f, "vhost.{first}.vcluster.{second}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Envoy 1.40 has them.
    #[test]
    fn parts_of_virtual_hosts_are_called_as_envoy_calls_them() {
        for (scope, name, family, labels) in [
            (
                FilterScope::route("vh", "a.b/c"),
                "vhost.vh.route.a.b/c.",
                "vhost.route.b/c.",
                &[(VIRTUAL_HOST, "vh"), ("envoy_route", "a")][..],
            ),
            (
                FilterScope::route("a.b:80", "p"),
                "vhost.a.b_80.route.p.",
                "vhost.b_80.route.p.",
                &[(VIRTUAL_HOST, "a")],
            ),
            (
                FilterScope::virtual_cluster("vh", "other"),
                "vhost.vh.vcluster.other.",
                "vhost.vcluster.",
                &[("envoy_virtual_cluster", "other"), (VIRTUAL_HOST, "vh")],
            ),
        ] {
            assert_eq!(scope.to_string(), name);
            let (shown, shown_labels) = scope.family();
            assert_eq!((&*shown, &*shown_labels), (family, labels), "{name}");
        }
    }
}
