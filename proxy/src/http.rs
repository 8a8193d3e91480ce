//! The HTTP connection manager: what happens to a request between the client's connection and the
//! upstream's.

pub mod client_cert;
pub mod forwarded;
pub mod hop_by_hop;
pub mod host;
pub mod names;
pub mod overrides;
pub mod path;
pub mod protocol;
pub mod replay;
pub mod request_id;
pub mod retry;
pub mod timeout;
