//! Which statistics there are: one struct per scope, each field with its Envoy name and meaning.

mod access_log;
mod cluster;
mod compression;
mod connection_limit;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
mod grpc;
mod http;
mod jwt_authn;
mod listener;
mod listener_filter;
mod local_rate_limit;
mod rate_limit;
mod rbac;
mod route;
mod server;
mod session;
mod tcp;
mod tracing;

use super::sample::{Samples, Scope};

pub use access_log::{AccessLogStats, GrpcAccessLogStats};
pub use cluster::ClusterStats;
pub use compression::{
    AcceptEncodingStats, CompressorStats, DecompressionErrorStats, DecompressorStats,
};
pub use connection_limit::ConnectionLimitStats;
pub use cors::CorsStats;
pub use csrf::CsrfStats;
pub use ext_authz::{ClusterAuthzStats, ExtAuthzStats, NetworkAuthzStats};
pub use fault::{ClusterFaultStats, FaultStats};
pub use grpc::{GrpcStats, GrpcUpstreamStats};
pub use http::HttpStats;
pub use jwt_authn::JwtAuthnStats;
pub use listener::{ListenerStats, ListenerWorkerStats};
pub use listener_filter::{
    HttpInspectorStats, ProxyProtocolStats, ProxyProtocolVersionStats, TlsInspectorStats,
};
pub use local_rate_limit::{ConnectionRateStats, LocalRateLimitStats};
pub use rate_limit::ClusterRateLimitStats;
pub use rbac::{RbacPolicyStats, RbacStats, ShadowRbacStats};
pub use route::RouteStats;
pub use server::{
    ConfigCacheStats, ControlPlaneStats, DnsCacheStats, DnsStats, ResolutionStats, ServerStats,
    SubscriptionStats,
};
pub use session::SessionStats;
pub use tcp::TcpStats;
pub use tracing::{OpenTelemetryStats, ZipkinStats};

/// A group of statistics that is counted in shards and summed when read.
pub(super) trait Group: Default + Send + Sync {
    /// Adds what `other` holds; see [`super::cell::Cell::absorb`].
    fn absorb(&self, other: &Self, alive: bool);

    /// Writes a sample of every field.
    fn sample(&self, scope: &Scope, out: &mut Samples);
}

/// Declares a struct of statistics: `/// meaning`, `field: Cell = "envoy.name"`.
macro_rules! statistics {
    ($(#[$attribute:meta])* $struct:ident {
        $(#[doc = $help:literal] $field:ident: $cell:ident = $name:literal,)*
    }) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        pub struct $struct {
            $(#[doc = $help] pub $field: $cell,)*
        }

        impl Group for $struct {
            fn absorb(&self, other: &Self, alive: bool) {
                $(self.$field.absorb(&other.$field, alive);)*
            }

            fn sample(&self, scope: &Scope, out: &mut Samples) {
                $(self.$field.sample(Name { scope, name: $name, help: $help }, out);)*
            }
        }
    };
}

use statistics;
