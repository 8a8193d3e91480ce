//! Who asks and who answers: workloads by name and by address, as proxies.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use prost_types::value::Kind as ValueKind;
use prost_types::{Struct, Value};
use xds::envoy::config::core::v3::Node;

use super::origin;
use super::report::Source;
use crate::model::istio::gateway::Gateway;
use crate::model::istio::workload_entry::WorkloadEntry;
use crate::model::kind::{Kind, Spec};
use crate::model::kubernetes::EndpointSlice;
use crate::model::object::Object;
use crate::model::workloads::{Labels, selects};
use crate::model::{Mesh, host};
use crate::translate::endpoints;
use crate::translate::proxy::{Proxy, Role};

/// The label of pods with a sidecar.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// The label of pods that serve a Gateway of the Gateway API.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A workload.
#[derive(Debug, Clone)]
pub(super) struct Workload<'m> {
    /// The pod or the entry; it stands where what it is made from stands.
    pub(super) object: &'m Arc<Object>,
    pub(super) labels: &'m Labels,
    account: &'m str,
}

impl<'m> Workload<'m> {
    fn of(object: &'m Arc<Object>) -> Option<Self> {
        let (labels, account) = match &object.spec {
            Spec::Pod(pod) => (&object.metadata.labels, pod.service_account_name.as_str()),
            Spec::WorkloadEntry(entry) => (&entry.labels, entry.service_account.as_str()),
            _ => return None,
        };
        let account = if account.is_empty() { "default" } else { account };
        Some(Self { object, labels, account })
    }

    /// `NAME.NAMESPACE` of this name; what is left of a pod's name after `-` may be missing.
    pub(super) fn named(mesh: &'m Mesh, wanted: &str) -> Result<Self> {
        let (name, namespace) = wanted.rsplit_once('.').unwrap_or((wanted, "default"));
        let all = || {
            let pods = mesh.of_kind(Kind::Pod).iter().chain(mesh.of_kind(Kind::WorkloadEntry));
            pods.filter(|it| it.metadata.namespace == namespace)
        };
        let begins = |it: &&Arc<Object>| {
            let rest = it.metadata.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        let found = all().find(|it| it.metadata.name == name).or_else(|| all().find(begins));
        let Some(found) = found.and_then(Self::of) else {
            let known: Vec<&str> = all().map(|it| it.metadata.name.as_str()).collect();
            bail!(
                "no workload {name} in namespace {namespace} (known there: {})",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
        };
        Ok(found)
    }

    /// The one with this address.
    pub(super) fn at(mesh: &'m Mesh, address: &str) -> Option<Self> {
        for slice in mesh.all::<EndpointSlice>() {
            for endpoint in &slice.spec.endpoints {
                if !endpoint.addresses.iter().any(|it| it == address) {
                    continue;
                }
                let target = endpoint.target_ref.as_ref().filter(|it| it.kind == "Pod")?;
                return Self::of(mesh.get(Kind::Pod, slice.namespace(), &target.name)?);
            }
        }
        mesh.all::<WorkloadEntry>()
            .find(|it| it.spec.address == address)
            .and_then(|it| Self::of(it.object))
    }

    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.object.metadata.name, self.object.metadata.namespace)
    }

    /// Where it stands: what the pod is made from, if that is all there is.
    pub(super) fn source(&self, mesh: &Mesh) -> Source {
        let own = &self.object.origin;
        let templates = mesh.objects().filter(|it| it.kind() != Kind::Pod);
        let made_from = templates.filter(|it| it.metadata.name == self.object.metadata.name);
        let made_from = made_from.into_iter().find(|it| {
            let other = &it.origin;
            Arc::ptr_eq(&other.file, &own.file)
                && (other.document, &other.base) == (own.document, &own.base)
        });
        origin::source(made_from.unwrap_or(self.object), "")
    }

    /// Whether a proxy stands before it.
    pub(super) fn has_sidecar(&self) -> bool {
        match self.labels.get(TLS_MODE) {
            Some(mode) => mode == "istio",
            None => self.object.kind() == Kind::WorkloadEntry && self.account != "default",
        }
    }

    /// Its proxy.
    pub(super) fn proxy(&self, mesh: &Mesh) -> Result<Proxy> {
        let name = &self.object.metadata.name;
        let namespace = &self.object.metadata.namespace;
        let serves = |it: &Gateway| !it.selector.is_empty() && selects(&it.selector, self.labels);
        let is_gateway = self.labels.contains_key(GATEWAY_NAME)
            || mesh.all::<Gateway>().any(|it| serves(it.spec));
        let role = if is_gateway { "router" } else { "sidecar" };
        let addresses = self.addresses(mesh);
        let address = addresses.first().map_or("0.0.0.0", String::as_str);
        let labels = self.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        let labels = Value { kind: Some(ValueKind::StructValue(Struct { fields: labels })) };
        let metadata = BTreeMap::from([
            ("LABELS".to_owned(), labels),
            ("SERVICE_ACCOUNT".to_owned(), text(self.account)),
            ("INSTANCE_IPS".to_owned(), text(&addresses.join(","))),
        ]);
        let node = Node {
            id: format!("{role}~{address}~{name}.{namespace}~{namespace}.{}", host::SERVICE_DOMAIN),
            metadata: Some(Struct { fields: metadata }),
            ..Node::default()
        };
        Ok(Proxy::of(&node)?)
    }

    fn addresses(&self, mesh: &Mesh) -> Vec<String> {
        if let Spec::WorkloadEntry(entry) = &self.object.spec {
            return vec![entry.address.clone()];
        }
        let mut addresses: Vec<String> = Vec::new();
        let namespace = &self.object.metadata.namespace;
        for slice in mesh.all::<EndpointSlice>().filter(|it| it.namespace() == namespace) {
            let own = slice.spec.endpoints.iter().filter(|it| {
                let target = it.target_ref.as_ref();
                target.is_some_and(|it| it.name == self.object.metadata.name)
            });
            for address in own.flat_map(|it| &it.addresses) {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
        }
        addresses
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(ValueKind::StringValue(value.to_owned())) }
}

/// Who a proxy is for those it connects to.
pub(super) fn identity(mesh: &Mesh, proxy: &Proxy) -> String {
    let account = Some(proxy.service_account.as_str()).filter(|it| !it.is_empty());
    endpoints::identity(mesh, &proxy.namespace, account.unwrap_or("default"))
}

/// A proxy in words.
pub(super) fn shown(mesh: &Mesh, proxy: &Proxy) -> String {
    let role = match proxy.role {
        Role::Sidecar => "sidecar",
        Role::Router => "gateway",
    };
    format!("{}.{}, {role}, {}", proxy.name, proxy.namespace, identity(mesh, proxy))
}
