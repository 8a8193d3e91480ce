//! The two halves of the protocol against each other, in memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod both;
mod client_rules;
mod recorded;
mod rough;
mod server_rules;
mod world;
