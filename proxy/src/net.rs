//! Sockets and bytes: what the proxy needs from the operating system.

pub mod body;
pub mod socket;
