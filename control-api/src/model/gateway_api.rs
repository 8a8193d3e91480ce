//! The Gateway API's kinds, in every version that shares their fields.

#![expect(
    missing_docs,
    reason = "fields and values have the Gateway API's names; its reference explains them"
)]

pub mod backend_tls_policy;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
pub mod reference;
pub mod reference_grant;
pub mod stream_route;
