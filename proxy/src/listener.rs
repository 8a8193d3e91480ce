//! Listening sockets and the choice of a filter chain for each connection.

pub mod filter_chain;
pub mod inspector;
