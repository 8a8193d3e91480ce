//! Whole messages through the decoders: what is accepted and means what, what is refused and where.

mod accepted;
mod examples;
mod ignored;
mod istiod;
mod load_balancing;
mod refused;

use prost::{Message, Name};
use xds::yaml::Document;

use crate::config::Invalid;

/// Reads `yaml` as an `M` and decodes it; what either step refuses, as text.
fn decode<M: Message + Name + Default, T>(
    yaml: &str,
    decode: impl FnOnce(&M) -> Result<T, Vec<Invalid>>,
) -> Result<T, Vec<String>> {
    let proto = Document::new("test.yaml", yaml).read::<M>().map_err(|errors| {
        errors.iter().map(|error| format!("{}: {}", error.path, error.reason)).collect::<Vec<_>>()
    })?;
    decode(&proto).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}
