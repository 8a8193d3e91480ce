//! Outrigger's data plane.

pub mod config;
