//! Validated configuration as plain data: what every other module reads, free of protobuf and of live state.
//!
//! One file per Envoy resource or shared idea. Values here have passed every check that does not need
//! another resource; [`crate::snapshot`] links them into one consistent set.

pub mod access_log;
pub mod address;
pub mod bootstrap;
pub mod cluster;
pub mod compression;
pub mod connecting;
pub mod dns;
pub mod endpoint;
pub mod expression;
pub mod ext_authz;
pub mod fault;
pub mod format;
pub mod global_rate_limit;
pub mod grpc_stats;
pub mod hash_policy;
pub mod header;
pub mod header_rules;
pub mod health_check;
pub mod http;
pub mod http_filter;
pub mod internal_redirect;
pub mod invalid;
pub mod istio;
pub mod json;
pub mod jwt;
pub mod listener;
pub mod local_rate_limit;
pub mod matcher;
pub mod metadata;
pub mod mirror;
pub mod overload;
pub mod rate_limit;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod service;
pub mod sharing;
pub mod source;
pub mod statistics;
pub mod subset;
pub mod tcp;
pub mod tls;
pub mod tlv;
pub mod tracing;

pub use invalid::Invalid;

/// A resource's name, shared instead of copied.
pub type Name = std::sync::Arc<str>;

/// A hash map with the fast, seeded hasher used on the request path.
pub type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
