//! Outrigger's control plane: Istio, Gateway API and Kubernetes objects in, proxies' configuration and findings out.
//!
//! [`source`] reads objects and keeps the last good ones, [`model`] is the mesh they describe, [`validate`] says
//! what is wrong with it, [`analyze`] tells that to people. [`translate`] says what each proxy is to know of it, and
//! [`serve`] hands that out.
//!
//! A module uses only those listed after it:

pub mod ctl;

pub mod server;

pub mod serve;

pub mod analyze;

pub mod translate;

pub mod validate;

pub mod source;

pub mod model;

pub mod yaml;
