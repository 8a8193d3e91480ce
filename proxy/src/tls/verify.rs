//! Whether a peer's certificate is trusted: chain, time, usage, revocation, names and hashes.
//!
//! All of it happens inside the handshake, so that a peer that is refused learns it by an alert and
//! never sends a request.

mod adapter;
mod policy;
mod signature;

pub(super) use adapter::{ClientVerifier, ServerVerifier};
pub(super) use policy::{Policy, Trust};
