//! Every service by its host name, whether Kubernetes or a `ServiceEntry` tells of it, and who may see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Mesh;
use super::host;
use super::istio::service_entry::ServiceEntry;
use super::kubernetes::Service;
use super::object::Object;
use super::visibility::Visibility;

/// For services, what `exportTo` is for Istio's kinds: namespaces with commas between them.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// A host that requests may go to.
#[derive(Debug, Clone)]
pub struct KnownService {
    /// The object that tells of it.
    pub object: Arc<Object>,
    /// The numbers of its ports.
    pub ports: Vec<u32>,
    /// Labels of the pods behind it, as far as they are found by labels.
    pub selector: Option<BTreeMap<String, String>>,
    /// Who may see it.
    pub visibility: Visibility,
}

/// All services.
#[derive(Debug, Default)]
pub struct Services {
    exact: BTreeMap<String, Vec<KnownService>>,
    /// By the name without its `*`, the longest first.
    wildcards: Vec<(String, KnownService)>,
}

impl Services {
    /// The services of a mesh.
    pub fn new(mesh: &Mesh) -> Self {
        let mut services = Self::default();
        let default = &mesh.config.default_service_export_to;
        for found in mesh.all::<Service>() {
            let annotation = found.object.metadata.annotations.get(EXPORT_TO);
            let export_to: Vec<String> = annotation
                .into_iter()
                .flat_map(|it| it.split(','))
                .map(|it| it.trim().into())
                .collect();
            let selector = Some(&found.spec.selector).filter(|selector| !selector.is_empty());
            let service = KnownService {
                object: Arc::clone(found.object),
                ports: found.spec.ports.iter().map(|port| port.port.into()).collect(),
                selector: selector.cloned(),
                visibility: Visibility::of(&export_to, found.namespace(), default),
            };
            services.add(host::service(found.name(), found.namespace()), service);
        }
        for found in mesh.all::<ServiceEntry>() {
            let service = KnownService {
                object: Arc::clone(found.object),
                ports: found.spec.ports.iter().map(|port| port.number).collect(),
                selector: found.spec.workload_selector.as_ref().map(|it| it.labels.clone()),
                visibility: Visibility::of(&found.spec.export_to, found.namespace(), default),
            };
            for name in &found.spec.hosts {
                services.add(host::qualified(name, found.namespace()), service.clone());
            }
        }
        services.wildcards.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        services
    }

    fn add(&mut self, host: String, service: KnownService) {
        match host.strip_prefix('*') {
            Some(suffix) => self.wildcards.push((suffix.to_owned(), service)),
            None => self.exact.entry(host).or_default().push(service),
        }
    }

    /// The service that an object of `namespace` means by `host`, as far as it may see it. A name that is told of
    /// goes before a wildcard, and a service of the own namespace before others.
    pub fn find(&self, host: &str, namespace: &str) -> Option<&KnownService> {
        self.find_for(host, namespace, namespace)
    }

    /// The same for an object that counts in another namespace, `viewer`.
    pub fn find_for(&self, host: &str, namespace: &str, viewer: &str) -> Option<&KnownService> {
        let host = host::qualified(host, namespace);
        let mut visible = self
            .exact
            .get(&host)
            .into_iter()
            .flatten()
            .filter(|service| service.visibility.sees(viewer))
            .peekable();
        let first = visible.peek().copied();
        let own = visible.find(|service| service.object.metadata.namespace == namespace);
        own.or(first).or_else(|| {
            let bare = host.strip_prefix('*').unwrap_or(&host);
            self.wildcards
                .iter()
                .filter(|(suffix, _)| bare.ends_with(suffix.as_str()))
                .map(|(_, service)| service)
                .find(|service| service.visibility.sees(viewer))
        })
    }
}
