//! Which object something comes from, and where that stands.

use prost_types::value::Kind as ValueKind;
use xds::envoy::config::core::v3::Metadata;

use super::report::Source;
use crate::model::Mesh;
use crate::model::object::Object;

/// The object, at one of its fields.
pub(super) fn source(object: &Object, path: &str) -> Source {
    let line = object.origin.locate(path).line;
    Source {
        kind: object.type_meta.kind.clone(),
        name: object.full_name(),
        path: path.to_owned(),
        at: format!("{}:{line}", object.origin.file.name),
    }
}

/// The object that the metadata `istio` names: `/apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME`.
pub(super) fn named<'m>(mesh: &'m Mesh, metadata: Option<&Metadata>) -> Option<&'m Object> {
    let config = metadata?.filter_metadata.get("istio")?.fields.get("config")?;
    let Some(ValueKind::StringValue(path)) = &config.kind else { return None };
    let parts: Vec<&str> = path.split('/').collect();
    let [.., "namespaces", namespace, kind, name] = parts[..] else { return None };
    let is_it = |it: &&std::sync::Arc<Object>| {
        it.metadata.name == name
            && it.metadata.namespace == namespace
            && dashed(&it.type_meta.kind) == dashed(kind)
    };
    mesh.objects().find(is_it).map(std::convert::AsRef::as_ref)
}

/// `VirtualService` and `virtual-service` are the same.
fn dashed(kind: &str) -> String {
    kind.replace('-', "").to_ascii_lowercase()
}
