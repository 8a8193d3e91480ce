//! The HTTP connection manager: what happens to a request between the client's connection and the
//! upstream's.

pub mod host;
pub mod path;
