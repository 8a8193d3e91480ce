//! The mesh as objects describe it: an immutable index of everything.

pub mod destination_rules;
pub mod duration;
pub mod gateway_api;
pub mod host;
pub mod istio;
pub mod kind;
pub mod kubernetes;
pub mod object;
pub mod protocol;
pub mod proxy_settings;
pub mod services;
pub mod visibility;
pub mod workloads;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use destination_rules::DestinationRules;
use istio::mesh_config::{MeshConfig, MeshNetworks};
use kind::{Kind, Typed};
use object::{Key, Object};
use proxy_settings::Annotated;

use crate::yaml::Problem;

/// Everything that is known of a mesh at one moment.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// What holds for the whole mesh.
    pub config: MeshConfig,
    /// The networks of the mesh, if there are several.
    pub networks: MeshNetworks,
    /// Settings of either that nothing reads, with the file's name.
    pub unread_settings: Vec<(String, Problem)>,
    by_kind: BTreeMap<Kind, Vec<Arc<Object>>>,
    duplicates: Vec<(Arc<Object>, Arc<Object>)>,
    /// Made when they are first asked for.
    destination_rules: OnceLock<DestinationRules>,
    annotated: OnceLock<Vec<Annotated>>,
}

/// An object with its content.
#[derive(Debug)]
pub struct Found<'m, T> {
    /// The object.
    pub object: &'m Arc<Object>,
    /// Its content.
    pub spec: &'m T,
}

impl<T> Clone for Found<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Found<'_, T> {}

impl<'m, T> Found<'m, T> {
    /// The object's namespace; empty for kinds without.
    pub fn namespace(&self) -> &'m str {
        &self.object.metadata.namespace
    }

    /// The object's name.
    pub fn name(&self) -> &'m str {
        &self.object.metadata.name
    }
}

impl Mesh {
    /// The mesh of these objects. Of several with the same kind and name the last one counts.
    pub fn new(
        objects: impl IntoIterator<Item = Arc<Object>>,
        config: MeshConfig,
        networks: MeshNetworks,
    ) -> Self {
        let mut mesh = Self { config, networks, ..Self::default() };
        let mut by_key: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        for object in objects {
            if let Some(earlier) = by_key.insert(object.key(), Arc::clone(&object)) {
                mesh.duplicates.push((earlier, object));
            }
        }
        for object in by_key.into_values() {
            mesh.by_kind.entry(object.kind()).or_default().push(object);
        }
        mesh
    }

    /// All objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> &[Arc<Object>] {
        self.by_kind.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// All objects of a type, by namespace and name.
    pub fn all<T: Typed>(&self) -> impl Iterator<Item = Found<'_, T>> {
        let objects = self.of_kind(T::KIND).iter();
        objects.filter_map(|object| Some(Found { object, spec: T::of(&object.spec)? }))
    }

    /// Those of one namespace, by name.
    pub fn of_namespace<T: Typed>(&self, namespace: &str) -> impl Iterator<Item = Found<'_, T>> {
        let objects = self.of_kind(T::KIND);
        let order = |it: &Arc<Object>| it.metadata.namespace.as_str().cmp(namespace);
        let begin = objects.partition_point(|it| order(it).is_lt());
        let end = objects.partition_point(|it| order(it).is_le());
        let objects = objects.get(begin..end).unwrap_or_default().iter();
        objects.filter_map(|object| Some(Found { object, spec: T::of(&object.spec)? }))
    }

    /// The object of this kind and name.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        let objects = self.of_kind(kind);
        let wanted = (namespace, name);
        let at = objects.binary_search_by(|object| {
            (object.metadata.namespace.as_str(), object.metadata.name.as_str()).cmp(&wanted)
        });
        at.ok().and_then(|at| objects.get(at))
    }

    /// Every object.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.by_kind.values().flatten()
    }

    /// Objects that were given more than once: the earlier one, which is ignored, and the one that counts.
    pub fn duplicates(&self) -> &[(Arc<Object>, Arc<Object>)] {
        &self.duplicates
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::kubernetes::Service;
    use crate::model::object::{SourceFile, read_file};

    fn mesh(text: &str) -> Mesh {
        let file = SourceFile::new(Path::new("x.yaml"), text.to_owned());
        let objects =
            read_file(&file, "default").unwrap().into_iter().map(|it| Arc::new(it.unwrap()));
        Mesh::new(objects, MeshConfig::default(), MeshNetworks::default())
    }

    #[test]
    fn objects_are_found_by_kind_and_name_and_the_last_one_counts() {
        let service = |name: &str, namespace: &str, port: u16| {
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, \
                 spec: {{ports: [{{port: {port}}}]}}}}\n---\n"
            )
        };
        let text = [service("a", "z", 1), service("b", "y", 2), service("a", "z", 3)].concat();
        let mesh = mesh(&text);
        let ports: Vec<_> = mesh
            .all::<Service>()
            .map(|it| (it.namespace().to_owned(), it.spec.ports[0].port))
            .collect();
        assert_eq!(ports, [("y".into(), 2), ("z".into(), 3)]);
        assert!(mesh.get(Kind::Service, "y", "b").is_some());
        assert!(mesh.get(Kind::Service, "z", "b").is_none());
        assert_eq!(mesh.duplicates().len(), 1);
        assert_eq!(mesh.objects().count(), 2);
    }
}
