//! Outrigger's data plane.

pub mod config;
pub mod telemetry;
pub mod http;
