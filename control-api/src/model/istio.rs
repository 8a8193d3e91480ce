//! Istio's own kinds: fields, names and defaults are those of its API, in every version that shares them.
//!
//! A number or a string that is not set is 0 or empty, as in protobuf; where that would mean something else than
//! "not set" the field is an `Option`.

#![expect(
    missing_docs,
    reason = "fields and values have Istio's names; its reference says what they mean"
)]

pub mod authorization_policy;
pub mod destination_rule;
pub mod envoy_filter;
pub mod extension_provider;
pub mod gateway;
pub mod mesh_config;
pub mod peer_authentication;
pub mod proxy_config;
pub mod proxy_headers;
pub mod request_authentication;
pub mod selector;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod wasm_plugin;
pub mod workload_entry;
pub mod workload_group;
