//! Listening sockets and the choice of a filter chain for each connection.

pub mod inspector;

pub use crate::filter_chain;
