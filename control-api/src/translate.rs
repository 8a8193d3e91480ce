//! What a proxy is told of the mesh: pure functions from the model and a node to Envoy's resources, named and filled as
//! Istio does it.

pub mod clusters;
pub mod endpoints;
pub mod policy;
pub mod proxy;
pub mod resources;
pub mod scope;
pub mod service;
mod values;
