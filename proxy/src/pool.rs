//! Connections to one endpoint: a ready one, or a new one.

pub mod circuit_breaker;
