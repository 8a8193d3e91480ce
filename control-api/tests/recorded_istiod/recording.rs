//! The recordings of a real istiod, the mesh that it had, and how ours is compared with what it said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_api::model::Mesh;
use control_api::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use control_api::model::kind::Spec;
use control_api::model::kubernetes::{IntOrString, Service};
use control_api::model::object::{Object, SourceFile, read_file};
use control_api::source::directory::Directory;
use control_api::translate::index::Index;
use control_api::yaml;
use prost::Message;
use serde_json::Value;
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::DiscoveryResponse;

/// The recordings without Istio's private metadata exchange: the setting of istiod that ours corresponds to.
const RUN: &str = "mx-off";

/// The folder of recordings; the test is skipped, loudly, without it.
pub(crate) fn recordings() -> Option<PathBuf> {
    let given = std::env::var_os("SUITES_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let found = given.unwrap_or(beside).join("istiod-1.30-ads");
    if found.is_dir() {
        return Some(found);
    }
    assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no SUITES_DIR");
    eprintln!("SKIPPED: no SUITES_DIR with recordings of an istiod");
    None
}

fn objects(text: String) -> Vec<Arc<Object>> {
    let file = SourceFile::new(Path::new("cluster-state.yaml"), text);
    read_file(&file, "default").unwrap().into_iter().map(|it| Arc::new(it.unwrap())).collect()
}

/// The mesh of the recording: its YAML, and what Kubernetes made of it.
pub(crate) fn mesh(folder: &Path) -> Index {
    let input = folder.join("input");
    let settings = fs::read_to_string(input.join("00-mesh-config.yaml")).unwrap();
    let documents = xds::yaml::tree::parse_all(&settings).unwrap();
    let config: MeshConfig = yaml::read(&documents[0], "", &[]).value.unwrap();
    let files = fs::read_dir(&input).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|it| it == "yaml"));
    let files = files.filter(|path| !path.ends_with("00-mesh-config.yaml"));
    let set = Directory::new(files).with_default_namespace("default").load();
    let mut all = set.objects;
    // Their content is nobody's business.
    for name in ["app-cert", "mutual-cert"] {
        let text =
            "{apiVersion: v1, kind: Secret, metadata: {name: NAME, namespace: istio-system}}";
        all.extend(objects(text.replace("NAME", name)));
    }
    // Every cluster has this one.
    all.extend(objects(
        "{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, \
         spec: {ports: [{name: https, port: 443, targetPort: 6443}]}}"
            .to_owned(),
    ));
    let state = fs::read_to_string(input.join("90-cluster-state.txt")).unwrap();
    let mut all: Vec<_> = all.into_iter().map(|it| with_address(it, &state)).collect();
    let described = Mesh::new(all.iter().cloned(), config.clone(), MeshNetworks::default());
    all.extend(objects(running(&described, &state)));
    Index::new(Mesh::new(all, config, MeshNetworks::default()))
}

/// Services get the address that Kubernetes gave them: `svc NAMESPACE/NAME ADDRESS …`.
fn with_address(object: Arc<Object>, state: &str) -> Arc<Object> {
    let Spec::Service(service) = &object.spec else { return object };
    let wanted = object.full_name();
    let address = state.lines().find_map(|line| {
        let parts: Vec<&str> = line.split_whitespace().collect();
        (parts.first() == Some(&"svc") && parts.get(1) == Some(&wanted.as_str()))
            .then(|| parts.get(2).unwrap().to_string())
    });
    let mut service = service.clone();
    service.cluster_ip = address
        .filter(|it| it.contains(char::is_numeric))
        .unwrap_or_else(|| service.cluster_ip.clone());
    Arc::new(Object { spec: Spec::Service(service), ..(*object).clone() })
}

/// Pods, and slices of the services that select them, from lines
/// `pod NAMESPACE/NAME ADDRESS sa=ACCOUNT LABEL=VALUE,…`.
fn running(mesh: &Mesh, state: &str) -> String {
    let mut yaml = String::new();
    for line in state.lines() {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let ["pod", full_name, address, account, labels] = parts[..] else { continue };
        let (namespace, name) = full_name.split_once('/').unwrap();
        let account = account.trim_start_matches("sa=");
        let labels: BTreeMap<&str, &str> =
            labels.split(',').map(|it| it.split_once('=').unwrap()).collect();
        let shown: Vec<_> = labels.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        let shown = shown.join(", ");
        let meta = format!("name: {name}, namespace: {namespace}");
        writeln!(
            yaml,
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{{meta}, labels: {{{shown}}}}}, \
             spec: {{serviceAccountName: {account}}}}}"
        )
        .unwrap();
        for service in mesh.all::<Service>().filter(|it| it.namespace() == namespace) {
            let mut selector = service.spec.selector.iter();
            let selected = selector.all(|(key, it)| labels.get(key.as_str()) == Some(&it.as_str()));
            if !service.spec.selector.is_empty() && selected {
                yaml += &slice(service.name(), service.spec, &meta, name, address);
            }
        }
    }
    yaml
}

fn slice(service: &str, spec: &Service, meta: &str, pod: &str, address: &str) -> String {
    let port = |port: &control_api::model::kubernetes::ServicePort| {
        let number = match port.target_port {
            Some(IntOrString::Int(number)) => number,
            _ => port.port,
        };
        format!("{{name: {:?}, port: {number}}}", port.name)
    };
    let ports: Vec<_> = spec.ports.iter().map(port).collect();
    let meta = meta.replacen(pod, &format!("{service}-{pod}"), 1);
    format!(
        "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{{meta}, labels: \
         {{kubernetes.io/service-name: {service}}}}}, addressType: IPv4, ports: [{}], endpoints: \
         [{{addresses: [{address}], targetRef: {{kind: Pod, name: {pod}}}}}]}}\n",
        ports.join(", ")
    )
}

/// The node that a proxy told of itself.
pub(crate) fn node(folder: &Path, name: &str) -> Node {
    let text = fs::read_to_string(folder.join("default").join(name).join("node.json")).unwrap();
    let mut node: Value = serde_json::from_str(&text).unwrap();
    // Nothing of ours reads what program it is.
    node.as_object_mut().unwrap().retain(|key, _| !key.starts_with("user_agent"));
    xds::yaml::Document::new(name, node.to_string()).read().unwrap()
}

/// The resources of one response to a proxy, `NNN-TYPE.pb`.
pub(crate) fn recorded<M: Message + Default>(folder: &Path, name: &str, file: &str) -> Vec<M> {
    recorded_in(RUN, folder, name, file)
}

/// The same of another run.
pub(crate) fn recorded_in<M: Message + Default>(
    run: &str,
    folder: &Path,
    name: &str,
    file: &str,
) -> Vec<M> {
    let file = folder.join(run).join(name).join("sotw").join(file);
    let response = DiscoveryResponse::decode(fs::read(file).unwrap().as_slice()).unwrap();
    let decode = |any: &prost_types::Any| M::decode(any.value.as_slice()).unwrap();
    response.resources.iter().map(decode).collect()
}

/// Paths at which two values differ, with both of them.
pub(crate) fn differences(
    path: &str,
    ours: &Value,
    theirs: &Value,
    found: &mut Vec<(String, String)>,
) {
    match (ours, theirs) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let none = &Value::Null;
                let (one, other) = (one.get(key).unwrap_or(none), other.get(key).unwrap_or(none));
                differences(&format!("{path}.{key}"), one, other, found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differences(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ if ours == theirs => {}
        _ => found.push((path.to_owned(), format!("{ours} instead of {theirs}"))),
    }
}

/// What differs and why, with what was looked for.
pub(crate) struct Explained<'a> {
    /// Proxy (`*` for all), beginning of the resource's name, something in the field's path, and why.
    pub(crate) list: &'a [(&'a str, &'a str, &'a str, &'a str)],
    used: BTreeSet<usize>,
    unexplained: Vec<String>,
    /// How many resources are wholly the same.
    pub(crate) same: usize,
}

impl<'a> Explained<'a> {
    /// Nothing is compared yet.
    pub(crate) fn new(list: &'a [(&'a str, &'a str, &'a str, &'a str)]) -> Self {
        Self { list, used: BTreeSet::new(), unexplained: Vec::new(), same: 0 }
    }

    /// Compares the resources of one proxy, by name.
    pub(crate) fn compare(
        &mut self,
        node: &str,
        ours: &BTreeMap<String, Value>,
        theirs: &BTreeMap<String, Value>,
    ) {
        let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let mut found = Vec::new();
            match (ours.get(name), theirs.get(name)) {
                (Some(ours), Some(theirs)) => differences("", ours, theirs, &mut found),
                (None, _) => found.push((".missing".to_owned(), String::new())),
                (_, None) => found.push((".surplus".to_owned(), String::new())),
            }
            self.same += usize::from(found.is_empty());
            for (path, values) in found {
                let explained = self.list.iter().position(|(of, begin, at, _)| {
                    (*of == "*" || *of == node) && name.starts_with(begin) && path.contains(at)
                });
                match explained {
                    Some(index) => drop(self.used.insert(index)),
                    None => self.unexplained.push(format!("{node} {name} {path}: {values}")),
                }
            }
        }
    }

    /// Fails if something is not explained, or explained and not so.
    pub(crate) fn settle(&self) {
        let explained = self.list.iter().enumerate();
        let stale: Vec<_> = explained.filter(|(index, _)| !self.used.contains(index)).collect();
        let unexplained = &self.unexplained;
        assert!(unexplained.is_empty(), "{}:\n{}", unexplained.len(), unexplained.join("\n"));
        assert!(stale.is_empty(), "explained, but not so: {stale:?}");
    }
}
