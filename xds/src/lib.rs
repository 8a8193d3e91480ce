//! The subset of Envoy's v3 API that Outrigger speaks: messages, YAML and JSON reading, strict checks.
//!
//! The files below `proto/` are the subset: package, message and field names and numbers are Envoy's, and a
//! field that is not declared there is refused, never dropped. [`yaml`] reads configuration files,
//! [`strict`] checks what arrives as bytes, [`json`] writes messages back for people.
//!
//! The xDS protocol is here as two state machines without sockets and clock, [`client`] and [`server`]. Both go by
//! [`subscription`] and speak in [`wire`]'s messages; [`snapshot`] is what a server has.

pub mod client;
mod generated;
pub mod json;
pub mod pace;
pub mod resource;
pub mod server;
pub mod snapshot;
pub mod strict;
pub mod subscription;
pub mod support;
pub mod type_url;
pub mod typed_struct;
pub mod wire;
pub mod yaml;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use generated::*;

/// Descriptors of every message of the subset, with the `google.protobuf` types they use.
#[expect(clippy::expect_used, reason = "the bytes are made by build.rs; a test decodes them")]
pub static DESCRIPTOR_POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice())
        .expect("embedded descriptors decode")
});

#[cfg(test)]
mod tests {
    use super::DESCRIPTOR_POOL;

    #[test]
    fn the_embedded_descriptors_decode() {
        assert!(DESCRIPTOR_POOL.get_message_by_name("google.rpc.Status").is_some());
    }
}
