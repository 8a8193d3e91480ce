//! The services of the mesh in one form, whether Kubernetes or a `ServiceEntry` tells of them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Mesh;
use crate::model::host;
use crate::model::istio::service_entry::{self, Location, ServiceEntry};
use crate::model::kind::Kind;
use crate::model::kubernetes;
use crate::model::object::Object;
use crate::model::protocol::Protocol;
use crate::model::visibility::Visibility;

/// For services, what `exportTo` is for Istio's kinds: namespaces with commas between them.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// The address of a service that has none of its own.
pub const ANY_ADDRESS: &str = "0.0.0.0";

/// How the endpoints of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// They are known.
    Endpoints,
    /// Each name is resolved, and every address used.
    Dns,
    /// Each name is resolved, and one address used per connection.
    DnsRoundRobin,
    /// The name that a request asks for is resolved.
    DynamicDns,
    /// The client has chosen an address.
    Passthrough,
    /// It is another name of another service.
    Alias,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// What clients connect to.
    pub number: u32,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What endpoints listen on unless they say otherwise: a `ServiceEntry`'s `targetPort`, or the same number.
    pub target: u32,
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its full name, perhaps beginning with `*`.
    pub host: String,
    /// Its short name: the Kubernetes name, or the host of a `ServiceEntry`.
    pub name: String,
    /// The object that tells of it.
    pub object: Arc<Object>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Whether what is behind it is no part of the mesh.
    pub external: bool,
    /// Names that its certificates must have; empty: those of its endpoints' accounts.
    pub subject_alt_names: Vec<String>,
    /// Who may see it.
    pub visibility: Visibility,
    /// The addresses, or ranges of them, that clients connect to; [`ANY_ADDRESS`] if it has none of its own.
    pub addresses: Vec<String>,
    /// The service that it is only another name of.
    pub alias_of: Option<String>,
    /// Its other names, as far as a proxy may see them.
    pub aliases: Vec<String>,
}

impl Service {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.object.metadata.namespace
    }

    /// Whether Kubernetes tells of it.
    pub fn is_kubernetes(&self) -> bool {
        self.object.kind() == Kind::Service
    }
}

/// Every service of a mesh, Kubernetes' before the others.
pub(super) fn all(mesh: &Mesh) -> Vec<Service> {
    let default = &mesh.config.default_service_export_to;
    let mut services: Vec<_> = mesh
        .all::<kubernetes::Service>()
        .map(|found| kubernetes_service(found.object, found.spec, default))
        .collect();
    for found in mesh.all::<ServiceEntry>() {
        services.extend(service_entry(found.object, found.spec, default));
    }
    services
}

fn kubernetes_service(
    object: &Arc<Object>,
    spec: &kubernetes::Service,
    default: &[String],
) -> Service {
    let metadata = &object.metadata;
    let export_to = metadata.annotations.get(EXPORT_TO).map(String::as_str).unwrap_or_default();
    let export_to: Vec<String> = export_to
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    let resolution = match (spec.r#type.as_str(), spec.cluster_ip.as_str()) {
        ("ExternalName", _) => Resolution::Alias,
        (_, "None") => Resolution::Passthrough,
        _ => Resolution::Endpoints,
    };
    let ports = spec.ports.iter().map(|port| Port {
        name: port.name.clone(),
        number: port.port.into(),
        protocol: Protocol::of(port),
        target: port.port.into(),
    });
    Service {
        host: host::service(&metadata.name, &metadata.namespace),
        name: metadata.name.clone(),
        object: Arc::clone(object),
        ports: ports.collect(),
        resolution,
        external: false,
        subject_alt_names: Vec::new(),
        visibility: Visibility::of(&export_to, &metadata.namespace, default),
        addresses: cluster_addresses(spec),
        alias_of: (resolution == Resolution::Alias)
            .then(|| spec.external_name.to_ascii_lowercase()),
        aliases: Vec::new(),
    }
}

fn cluster_addresses(spec: &kubernetes::Service) -> Vec<String> {
    let all = if spec.cluster_ips.is_empty() {
        std::slice::from_ref(&spec.cluster_ip)
    } else {
        spec.cluster_ips.as_slice()
    };
    or_any(all.iter().filter(|it| !it.is_empty() && *it != "None").cloned().collect())
}

fn or_any(addresses: Vec<String>) -> Vec<String> {
    if addresses.is_empty() { vec![ANY_ADDRESS.to_owned()] } else { addresses }
}

/// An address, or a range of more than one.
fn entry_address(address: &str) -> Option<String> {
    if address.parse::<IpAddr>().is_ok() {
        return Some(address.to_owned());
    }
    let (first, bits) = address.split_once('/')?;
    let (first, bits): (IpAddr, u8) = (first.parse().ok()?, bits.parse().ok()?);
    let all = if first.is_ipv4() { 32 } else { 128 };
    Some(if bits == all { first.to_string() } else { address.to_owned() })
}

fn service_entry<'m>(
    object: &'m Arc<Object>,
    spec: &'m ServiceEntry,
    default: &[String],
) -> impl Iterator<Item = Service> {
    let namespace = &object.metadata.namespace;
    let visibility = Visibility::of(&spec.export_to, namespace, default);
    let resolution = match spec.resolution {
        service_entry::Resolution::None => Resolution::Passthrough,
        service_entry::Resolution::Static => Resolution::Endpoints,
        service_entry::Resolution::Dns => Resolution::Dns,
        service_entry::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        service_entry::Resolution::DynamicDns => Resolution::DynamicDns,
    };
    spec.hosts.iter().map(move |name| Service {
        host: name.to_ascii_lowercase(),
        name: name.clone(),
        object: Arc::clone(object),
        ports: spec.ports.iter().map(entry_port).collect(),
        resolution,
        external: spec.location == Location::MeshExternal,
        subject_alt_names: spec.subject_alt_names.clone(),
        visibility: visibility.clone(),
        addresses: or_any(spec.addresses.iter().filter_map(|it| entry_address(it)).collect()),
        alias_of: None,
        aliases: Vec::new(),
    })
}

fn entry_port(port: &service_entry::ServicePort) -> Port {
    Port {
        name: port.name.clone(),
        number: port.number,
        protocol: Protocol::named(&port.protocol.to_ascii_lowercase()),
        target: if port.target_port == 0 { port.number } else { port.target_port },
    }
}
