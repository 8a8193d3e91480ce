//! What runs: pods, and the templates that pods are made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Mesh;
use super::kind::{Kind, Spec};
use super::kubernetes::{Container, Pod};
use super::object::Object;

/// Labels that traffic is split, and policies are bound by.
pub type Labels = BTreeMap<String, String>;

/// The container that is a sidecar.
pub const PROXY_CONTAINER: &str = "istio-proxy";

/// A pod, or a template of pods.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'m> {
    /// The pod, or what makes pods.
    pub object: &'m Arc<Object>,
    /// The pods' labels.
    pub labels: &'m Labels,
    /// The pods' annotations.
    pub annotations: &'m Labels,
    /// The pods' content.
    pub pod: &'m Pod,
}

impl Mesh {
    /// Pods, and templates of pods: a folder of YAML usually has only these.
    pub fn workloads(&self) -> impl Iterator<Item = Workload<'_>> {
        const KINDS: [Kind; 6] = [
            Kind::Pod,
            Kind::Deployment,
            Kind::StatefulSet,
            Kind::DaemonSet,
            Kind::ReplicaSet,
            Kind::Job,
        ];
        KINDS.into_iter().flat_map(|kind| self.of_kind(kind)).filter_map(Workload::of)
    }
}

impl<'m> Workload<'m> {
    fn of(object: &'m Arc<Object>) -> Option<Self> {
        let (labels, annotations, pod) = match &object.spec {
            Spec::Pod(pod) => (&object.metadata.labels, &object.metadata.annotations, &**pod),
            Spec::Deployment(it)
            | Spec::StatefulSet(it)
            | Spec::DaemonSet(it)
            | Spec::ReplicaSet(it)
            | Spec::Job(it) => {
                let template = &it.template;
                (&template.metadata.labels, &template.metadata.annotations, &template.spec)
            }
            _ => return None,
        };
        Some(Self { object, labels, annotations, pod })
    }

    /// The namespace.
    pub fn namespace(&self) -> &'m str {
        &self.object.metadata.namespace
    }

    /// Containers, and those that start before them.
    pub fn containers(&self) -> impl Iterator<Item = &'m Container> + use<'m> {
        self.pod.containers.iter().chain(&self.pod.init_containers)
    }

    /// Whether these labels select it; an empty selector selects everything.
    pub fn is_selected_by(&self, selector: &Labels) -> bool {
        selects(selector, self.labels)
    }

    /// Whether it has a sidecar, or gets one: by container, label, annotation, or its namespace's label.
    pub fn has_sidecar(&self, mesh: &Mesh) -> bool {
        if self.containers().any(|it| it.name == PROXY_CONTAINER && !it.image.is_empty()) {
            return true;
        }
        const INJECT: &str = "sidecar.istio.io/inject";
        if let Some(wanted) = self.labels.get(INJECT).or_else(|| self.annotations.get(INJECT)) {
            return wanted == "true";
        }
        let namespace = mesh.get(Kind::Namespace, "", self.namespace());
        let label = namespace.and_then(|it| it.metadata.labels.get("istio-injection"));
        label.is_some_and(|label| label == "enabled")
    }

    /// Whether its traffic is redirected to a proxy per node.
    pub fn is_ambient(&self) -> bool {
        self.annotations.get("ambient.istio.io/redirection").is_some_and(|it| it == "enabled")
    }
}

/// Whether an object with these labels is selected: it has all of the selector's. An empty selector selects
/// everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A selector as `key=value,key=value`.
pub fn shown(selector: &Labels) -> String {
    let pairs: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
