//! The servers of a gateway by the port that it listens at, those left out that others are in the way of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::istio::gateway::{Gateway, Server, ServerTlsSettings, TlsMode};
use crate::model::protocol::Protocol;
use crate::model::workloads::selects;
use crate::translate::egress::View;
use crate::translate::inbound;
use crate::translate::service::{ANY_ADDRESS, Port as ServicePort, Service};

/// The label of the Gateway API's gateway that a workload serves.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A port that a gateway listens at.
pub(super) struct Port<'m> {
    pub(super) bind: String,
    pub(super) number: u32,
    pub(super) servers: Vec<Served<'m>>,
}

/// A server of a `Gateway`.
pub(super) struct Served<'m> {
    /// The gateway, `NAMESPACE/NAME`.
    pub(super) gateway: String,
    pub(super) spec: &'m Server,
    /// The port that clients know.
    pub(super) number: u32,
    pub(super) protocol: Protocol,
    /// Names, or `NAMESPACE/NAME` for virtual services of that namespace alone.
    pub(super) hosts: Vec<String>,
    /// Its route configuration; empty if it does not see requests.
    pub(super) routes: String,
}

impl Served<'_> {
    /// Its TLS settings.
    pub(super) fn tls(&self) -> Option<&ServerTlsSettings> {
        self.spec.tls.as_ref()
    }

    /// Whether TLS does not end here.
    pub(super) fn is_passthrough(&self) -> bool {
        self.tls()
            .is_some_and(|it| matches!(it.mode, TlsMode::Passthrough | TlsMode::AutoPassthrough))
    }

    /// Whether it has no TLS.
    fn is_plain(&self) -> bool {
        self.tls().is_none() || self.protocol.is_http()
    }

    /// The names that TLS is asked for.
    pub(super) fn server_names(&self) -> Vec<String> {
        let names = self.hosts.iter().map(|it| it.split_once('/').map_or(&**it, |(_, name)| name));
        names.map(ToOwned::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The ports, in the order of the gateways, the oldest first.
pub(super) fn ports<'m>(view: &View<'m>) -> Vec<Port<'m>> {
    let targets = Targets { view, by_port: inbound::targets(view.mesh, view.proxy) };
    let mut ports: Vec<Port<'m>> = Vec::new();
    for source in sources(view, &targets) {
        for spec in source.servers {
            let Some(port) = &spec.port else { continue };
            let number = targets.listened(port.number, source.services);
            let served = served(spec, source.namespace, source.name, port.number, number);
            let Some(served) = served else { continue };
            let bind = Some(spec.bind.as_str()).filter(|it| !it.is_empty()).unwrap_or(ANY_ADDRESS);
            match ports.iter_mut().find(|it| it.number == number && it.bind == bind) {
                None => {
                    let bind = bind.to_owned();
                    ports.push(Port { bind, number, servers: vec![served] });
                }
                Some(port) if port.has_room(&served) => port.servers.push(served),
                Some(_) => {}
            }
        }
    }
    ports
}

/// A gateway that the proxy serves.
struct Source<'m> {
    age: String,
    name: &'m str,
    namespace: &'m str,
    servers: &'m [Server],
    /// The services whose ports it has; none for all of the proxy's.
    services: Option<&'m [String]>,
}

fn sources<'m>(view: &View<'m>, targets: &Targets<'_, 'm>) -> Vec<Source<'m>> {
    let proxy = view.proxy;
    let selected =
        view.mesh.all::<Gateway>().filter(|it| selects(&it.spec.selector, &proxy.labels));
    let mut sources: Vec<_> = selected
        .map(|it| Source {
            age: it.object.metadata.creation_timestamp.clone().unwrap_or_default(),
            name: &it.object.metadata.name,
            namespace: &it.object.metadata.namespace,
            servers: &it.spec.servers,
            services: None,
        })
        .collect();
    for listening in view.mesh.gateway_listeners().iter().filter(|it| it.programmed) {
        let gateway = &listening.gateway.metadata;
        let named = proxy.labels.get(GATEWAY_NAME) == Some(&gateway.name);
        let labelled = listening.by_label && named;
        let here = proxy.namespace == gateway.namespace;
        if here && (labelled || targets.is_behind(&listening.services)) {
            sources.push(Source {
                age: listening.object.metadata.creation_timestamp.clone().unwrap_or_default(),
                name: &listening.name,
                namespace: &listening.object.metadata.namespace,
                servers: std::slice::from_ref(&listening.server),
                services: Some(&listening.services),
            });
        }
    }
    sources.sort_by(|one, other| {
        let key = |it: &Source<'m>| (it.age.clone(), it.name, it.namespace);
        key(one).cmp(&key(other))
    });
    sources
}

/// What the proxy's workload is reached by: its own ports, the services and theirs.
struct Targets<'v, 'm> {
    view: &'v View<'m>,
    by_port: BTreeMap<u32, Vec<(&'m Service, &'m ServicePort)>>,
}

impl Targets<'_, '_> {
    /// The port that the workload listens at for a port of its services, or of these alone.
    fn listened(&self, number: u32, services: Option<&[String]>) -> u32 {
        let is_meant = |(service, port): &(&Service, &ServicePort)| {
            port.number == number
                && services.is_none_or(|it| it.contains(&service.host))
                && self.is_seen(service)
        };
        let known = self.by_port.iter().find(|(_, of)| of.iter().any(is_meant));
        known.map_or(number, |(target, _)| *target)
    }

    /// Whether one of these services leads to it.
    fn is_behind(&self, services: &[String]) -> bool {
        let mut all = self.by_port.values().flatten();
        all.any(|(service, _)| services.contains(&service.host) && self.is_seen(service))
    }

    fn is_seen(&self, service: &Service) -> bool {
        let seen = self.view.service(&service.host);
        seen.is_some_and(|it| Arc::ptr_eq(&it.object, &service.object))
    }
}

impl Port<'_> {
    /// HTTP shares a port with HTTP, TLS with TLS as long as no name is there twice.
    fn has_room(&self, new: &Served<'_>) -> bool {
        let Some(first) = self.servers.first() else { return true };
        if first.is_plain() || new.is_plain() {
            return first.protocol.is_http() && new.protocol.is_http();
        }
        let taken = |it: &Served<'_>| {
            it.hosts.iter().any(|host| new.hosts.contains(host))
                || (!new.routes.is_empty() && it.routes == new.routes)
        };
        !self.servers.iter().any(taken)
    }
}

fn served<'m>(
    spec: &'m Server,
    namespace: &str,
    name: &str,
    number: u32,
    listened: u32,
) -> Option<Served<'m>> {
    let port = spec.port.as_ref()?;
    let protocol = Protocol::named(&port.protocol.to_ascii_lowercase());
    let bind = if spec.bind.is_empty() { String::new() } else { format!(".{}", spec.bind) };
    let mut served = Served {
        gateway: format!("{namespace}/{name}"),
        spec,
        number,
        protocol,
        hosts: spec.hosts.iter().map(|it| host(it, namespace)).collect(),
        routes: String::new(),
    };
    if protocol.is_http() {
        served.routes = format!("http.{listened}{bind}");
    } else if protocol == Protocol::Https && served.tls().is_some() && !served.is_passthrough() {
        served.routes = format!("https.{number}.{}.{name}.{namespace}{bind}", port.name);
    }
    Some(served)
}

/// `./HOST` is of the gateway's namespace, `*/HOST` of all.
fn host(host: &str, namespace: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}"),
        Some(("*", name)) => name.to_owned(),
        _ => host,
    }
}
