//! Sidecars: which namespaces get them, which pods lack them, and which are old.

use std::collections::BTreeMap;

use serde_json::Value;

use super::workload::is_platform;
use crate::model::Mesh;
use crate::model::istio::proxy_config::ProxyConfig;
use crate::model::kind::Kind;
use crate::model::kubernetes::{ConfigMap, Pod};
use crate::model::object::Metadata;
use crate::model::workloads::{PROXY_CONTAINER, selects};
use crate::validate::code;
use crate::validate::finding::Findings;

const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
const INJECTOR: &str = "istio-sidecar-injector";

pub(super) fn sidecars(mesh: &Mesh, findings: &mut Findings) {
    let mut injected = Vec::new();
    for namespace in mesh.of_kind(Kind::Namespace) {
        let Metadata { name, labels, .. } = &namespace.metadata;
        if name == "istio-system" || is_platform(name) {
            continue;
        }
        let injection = labels.get(INJECTION).map(String::as_str);
        let mut kinds: Vec<String> =
            injection.map(|value| format!("{INJECTION}={value}")).into_iter().collect();
        if injection.is_none_or(|value| value == "enabled") {
            for key in [REVISION, DATAPLANE_MODE] {
                kinds.extend(labels.get(key).map(|value| format!("{key}={value}")));
            }
        }
        if kinds.len() > 1 {
            let kinds = kinds.join(", ");
            let message = format!("The namespace has several labels about injection: {kinds}");
            let finding = findings.report(
                code::MULTIPLE_INJECTION_LABELS,
                namespace,
                "metadata.labels",
                message,
            );
            finding.fix("keep one of them");
        }
        if labels.get(DATAPLANE_MODE).is_some_and(|mode| mode == "ambient") {
            continue;
        }
        let revision = labels.get(REVISION);
        if injection.is_none_or(str::is_empty) && revision.is_none() {
            if enabled_by_default(mesh) {
                let message = "Injected, because Istio is installed with enableNamespacesByDefault";
                let code = code::INJECTION_ENABLED_BY_DEFAULT;
                findings.report(code, namespace, "metadata.name", message);
            } else {
                let message = "Pods of this namespace get no sidecar";
                let code = code::NAMESPACE_NOT_INJECTED;
                let finding = findings.report(code, namespace, "metadata.name", message);
                finding.fix(format!(
                    "set the label {INJECTION} to enabled, or to disabled if that is wanted"
                ));
            }
        } else if injection == Some("enabled") {
            injected.push(name.as_str());
        }
    }
    pods_without(&injected, mesh, findings);
}

fn pods_without(injected: &[&str], mesh: &Mesh, findings: &mut Findings) {
    for pod in mesh.all::<Pod>().filter(|pod| injected.contains(&pod.namespace())) {
        let Metadata { labels, annotations, .. } = &pod.object.metadata;
        const INJECT: &str = "sidecar.istio.io/inject";
        let wanted = labels.get(INJECT).or_else(|| annotations.get(INJECT));
        let unwanted = wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case("false"));
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let has_proxy =
            containers.filter(|it| it.name == PROXY_CONTAINER).any(|it| !it.image.is_empty());
        if !unwanted && !pod.spec.host_network && !has_proxy {
            let message = format!("Pod {} has no sidecar", pod.object.full_name());
            let finding =
                findings.report(code::POD_MISSING_PROXY, pod.object, "metadata.name", message);
            finding.fix("restart it, or what made it: sidecars are added when a pod is made");
        }
    }
}

/// The injector's settings for a revision.
fn injector(revision: &str, mesh: &Mesh) -> Option<Value> {
    let name = match revision {
        "" | "default" => INJECTOR.to_owned(),
        revision => format!("{INJECTOR}-{revision}"),
    };
    let found = mesh.all::<ConfigMap>().find(|it| it.name() == name)?;
    serde_json::from_str(found.spec.data.get("values")?).ok()
}

fn enabled_by_default(mesh: &Mesh) -> bool {
    let settings = injector("", mesh);
    let pointer = "/sidecarInjectorWebhook/enableNamespacesByDefault";
    settings.and_then(|it| it.pointer(pointer)?.as_bool()).unwrap_or(false)
}

pub(super) fn images(mesh: &Mesh, findings: &mut Findings) {
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pod in mesh.all::<Pod>() {
        let Some(namespace) = mesh.get(Kind::Namespace, "", pod.namespace()) else { continue };
        let labels = &namespace.metadata.labels;
        let revision = match labels.get(REVISION) {
            Some(revision) => revision.as_str(),
            None if labels.get(INJECTION).is_some_and(|it| it == "enabled") => "default",
            None => continue,
        };
        let asked = pod.object.metadata.annotations.get("sidecar.istio.io/proxyImage");
        if asked.is_some_and(|image| !image.is_empty()) {
            continue;
        }
        let Some(image) = injector(revision, mesh).as_ref().and_then(proxy_image) else { continue };
        let variant = format!("{image}-{}", image_type(&pod.object.metadata, mesh));
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let mut proxies = containers.filter(|it| it.name == PROXY_CONTAINER);
        if proxies.any(|it| it.image != image && it.image != variant) {
            others.entry(pod.namespace()).or_default().push(pod.name());
        }
    }
    for (namespace, pods) in others {
        let Some(object) = mesh.get(Kind::Namespace, "", namespace) else { continue };
        let pods = pods.join(", ");
        let message = format!("Pods with another proxy than is injected now: {pods}");
        let finding = findings.report(code::PROXY_IMAGE_MISMATCH, object, "metadata.name", message);
        finding.fix("redeploy them");
    }
}

fn proxy_image(settings: &Value) -> Option<String> {
    let text = |pointer| settings.pointer(pointer).and_then(Value::as_str);
    let image = text("/global/proxy/image")?;
    if image.contains('/') {
        return Some(image.to_owned());
    }
    let tag = settings.pointer("/global/tag")?;
    let tag = tag.as_str().map_or_else(|| tag.to_string(), ToOwned::to_owned);
    Some(format!("{}/{image}:{tag}", text("/global/hub")?))
}

/// Which variant of the image a pod gets, by `ProxyConfig` objects: of the pod, its namespace, or the mesh.
fn image_type(pod: &Metadata, mesh: &Mesh) -> String {
    let mut chosen = (0, String::new());
    for config in mesh.all::<ProxyConfig>() {
        let Some(image) = &config.spec.image else { continue };
        let selector = config.spec.selector.as_ref();
        let rank = match selector.map(|selector| &selector.match_labels) {
            _ if config.namespace() == mesh.config.root_namespace => 1,
            None if config.namespace() == pod.namespace => 2,
            Some(labels) if config.namespace() == pod.namespace && selects(labels, &pod.labels) => {
                3
            }
            _ => continue,
        };
        if rank > chosen.0 && !image.image_type.is_empty() {
            chosen = (rank, image.image_type.clone());
        }
    }
    chosen.1
}
