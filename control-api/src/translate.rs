//! What a proxy is told of the mesh: pure functions from the model and a node to Envoy's resources, named and filled as
//! Istio does it.

mod attachment;
pub mod audience;
mod authorization;
pub mod clusters;
pub mod egress;
pub mod endpoints;
mod gateway_api;
pub mod gateways;
pub mod inbound;
pub mod index;
mod jwt;
pub mod listeners;
mod locality;
mod manager;
pub mod peer;
pub mod policy;
mod providers;
pub mod proxy;
pub mod registry;
pub mod resources;
pub mod routes;
pub mod scope;
mod secrets;
pub mod security;
pub mod service;
pub mod telemetry;
pub mod unapplied;
mod values;
pub mod virtual_services;
