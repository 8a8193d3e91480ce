//! Configuration in: bootstrap and resource files are read, decoded, linked and published as snapshots.
//!
//! [`decode`] turns messages into validated data; [`mod@file`] reads and watches files; [`dns`] resolves names;
//! [`assemble`] owns the current resources and publishes each change whole, or not at all; [`dump`] shows
//! them. Only this module knows protobuf.

mod assemble;
pub mod decode;
mod dns;
pub mod dump;
mod file;
pub mod identity;
mod kept;
mod own;
mod served;
mod streams;

pub use xds::yaml::Error as Located;

pub use self::assemble::{Assembler, Publish, Written};
pub use self::file::bootstrap::Sources;
pub use self::own::Identity;
use crate::config::{Invalid, Name};

/// A snapshot that could not be published because of one of its listeners.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener {listener}: {error}")]
pub struct Unpublished {
    /// The listener.
    pub listener: Name,
    /// The field at fault, from the listener's root.
    pub error: Invalid,
}
