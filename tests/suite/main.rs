//! Scenarios from outside: real processes, real sockets, and a real Envoy as the second opinion.
//!
//! A scenario listed in `on_both!` runs once with Outrigger and once with Envoy, on the same
//! bootstrap, and has to hold for both. One listed in `on_outrigger_only!` names the
//! [difference](differences) that keeps Envoy out of it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

/// Makes two tests of each scenario: one per program.
macro_rules! on_both {
    ($($scenario:ident),+ $(,)?) => {
        $(mod $scenario {
            #[tokio::test]
            async fn outrigger() {
                super::$scenario(harness::Program::Outrigger).await;
            }

            #[tokio::test]
            async fn envoy() {
                if harness::Program::Envoy.is_installed() {
                    super::$scenario(harness::Program::Envoy).await;
                }
            }
        })+
    };
}

/// Makes one test of each scenario, with the reason why there is none for Envoy.
macro_rules! on_outrigger_only {
    ($($scenario:ident because $reason:ident),+ $(,)?) => {
        $(mod $scenario {
            #[tokio::test]
            async fn outrigger() {
                eprintln!("not for Envoy: {}", crate::differences::$reason.0);
                super::$scenario(harness::Program::Outrigger).await;
            }
        })+
    };
}

mod access_log;
mod admin;
mod ads;
mod agent;
mod authz_goldens;
mod book_shop;
mod canary;
mod circuit_breaker;
mod cli;
mod compression;
mod control_plane;
mod cors;
mod csrf;
mod differences;
mod dns;
mod drain;
mod envoy_examples;
mod examples;
mod explain;
mod ext_authz;
mod failover;
mod fault;
mod fields;
mod forward_proxy;
mod gateway_api;
mod grpc_filters;
mod hashing;
mod header_mutation;
mod headers;
mod health_check;
mod hot_swap;
mod image;
mod interception;
mod internal_redirect;
mod istio;
mod istiod_policies;
mod istiod_streams;
mod jwt_authn;
mod keepalive;
mod killed;
mod layering;
mod listener;
mod load_balancing;
mod local_rate_limit;
mod memory;
mod mirroring;
mod mtls;
mod network_ext_authz;
mod network_rbac;
mod outlier;
mod overload;
mod path;
mod protocols;
mod rate_limit;
mod rbac;
mod retry;
mod route_stats;
mod router_check;
mod routing;
mod small_filters;
mod stale_connections;
mod stateful_session;
mod statistics;
mod stream_duration;
mod subsets;
mod suites;
mod tcp;
mod timeouts;
mod tracing;
mod upgrade;
mod upstream;
