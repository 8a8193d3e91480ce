//! What build.rs made of the .proto files: one module per package, for example `envoy::config::cluster::v3`.

#![allow(missing_docs, rustdoc::all, clippy::all, clippy::pedantic, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/packages.rs"));
