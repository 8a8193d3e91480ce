//! Sockets and bytes: what the proxy needs from the operating system.

pub mod body;
pub mod copy;
pub mod grpc;
mod hostname;
pub mod listening;
pub mod own_address;
pub mod proxy_protocol;
pub mod readable;
pub mod socket;
pub mod splice;
pub mod structure;

pub use hostname::hostname;
pub use own_address::own_address;
