//! What holds for the whole mesh: from files, or from the `ConfigMap` that Istio keeps it in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use xds::yaml::tree::parse_all;

use super::ObjectSet;
use crate::model::Mesh;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::kubernetes::ConfigMap;
use crate::yaml::{self, Problem};

/// The object that holds the mesh's settings in a cluster.
const MESH_CONFIG_MAP: &str = "istio";

/// Files with settings; where there is none, the `ConfigMap`'s count.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `MeshConfig`.
    pub mesh_config: Option<PathBuf>,
    /// `MeshNetworks`.
    pub mesh_networks: Option<PathBuf>,
}

impl Settings {
    /// The mesh of these objects, with its settings.
    ///
    /// # Errors
    /// A file or the `ConfigMap` cannot be read.
    pub fn mesh(&self, set: &ObjectSet) -> Result<Mesh> {
        let objects = || set.objects.iter().cloned();
        let first = Mesh::new(objects(), MeshConfig::default(), MeshNetworks::default());
        let installed = first.all::<ConfigMap>().find(|map| map.name() == MESH_CONFIG_MAP);
        let of_map =
            |key: &str| installed.and_then(|map| map.spec.data.get(key)).map(String::as_str);
        let mut unread = Vec::new();
        let config = read(self.mesh_config.as_deref(), of_map("mesh"), &mut unread)?;
        let given = self.mesh_networks.as_deref();
        let networks = read(given, of_map("meshNetworks"), &mut unread)?;
        let mut mesh = Mesh::new(objects(), config, networks);
        mesh.unread_settings = unread;
        Ok(mesh)
    }
}

/// The settings; those that nothing reads are added to `unread`, with the file's name.
fn read<T: DeserializeOwned + Default>(
    file: Option<&Path>,
    installed: Option<&str>,
    unread: &mut Vec<(String, Problem)>,
) -> Result<T> {
    let (name, text) = match (file, installed) {
        (Some(file), _) => {
            let name = file.display().to_string();
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
            (name, text)
        }
        (None, Some(text)) => (format!("ConfigMap {MESH_CONFIG_MAP}"), text.to_owned()),
        (None, None) => return Ok(T::default()),
    };
    let documents = parse_all(&text)
        .map_err(|error| anyhow::anyhow!("{name}:{}: {}", error.at, error.reason))?;
    let Some(root) = documents.first().filter(|root| !root.is_null()) else {
        return Ok(T::default());
    };
    let reading = yaml::read(root, "", &[]);
    unread.extend(reading.unknown.into_iter().map(|problem| (name.clone(), problem)));
    reading.value.map_err(|problem| anyhow::anyhow!("{name}: {problem}"))
}
