//! TLS to clients and to upstream servers: contexts built from configuration, and the facts of a handshake.
//!
//! [`server::ServerTls`] and [`client::ClientTls`] are immutable. A change of any certificate, key or
//! trust bundle builds a new one, so sessions of the old one cannot be resumed on the new.

pub mod certificate;
mod cipher;
pub mod client;
pub mod failure;
mod identity;
mod key_log;
mod options;
pub mod peer;
mod pem;
mod roots;
mod san;
pub mod secrets;
pub mod server;
mod ticket;
mod verify;

#[cfg(test)]
mod tests;
