//! The HTTP connection manager: what happens to a request between the client's connection and the
//! upstream's.

pub mod body;
pub mod canonical;
pub mod client_cert;
pub mod codec;
pub mod connection;
pub mod deadline;
pub mod dynamic;
pub(crate) mod ends;
pub mod facts;
pub mod filter;
pub mod finish;
pub mod forward_proxy;
pub mod forwarded;
pub mod head;
pub mod head_guard;
pub mod hop_by_hop;
pub mod host;
pub mod io;
pub mod local_reply;
pub mod names;
mod open_connection;
pub mod overrides;
pub mod path;
pub mod protocol;
pub mod replay;
pub mod request_body;
pub mod request_id;
pub mod respond;
pub mod retry;
pub mod router;
pub mod service;
pub mod stream;
pub mod timeout;
pub mod upgrade;
mod watchdog;
pub mod way;
