//! Outrigger's data plane.

pub mod admin;
pub mod cluster;
pub mod config;
pub mod discovery;
pub mod filter_chain;
pub mod http;
pub mod listener;
pub mod net;
pub mod pool;
pub mod route;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;
