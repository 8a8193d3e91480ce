//! Listeners: sockets opened and closed as the configuration says, connections accepted and matched to a filter chain.

pub mod accept;
pub mod access_logs;
mod admission;
pub mod balance;
mod connection_limit;
mod connection_log;
mod connection_rate;
mod filters;
mod first_words;
pub mod manager;
mod network_authz;
mod network_filters;
mod race;
mod receive;
mod serve;
