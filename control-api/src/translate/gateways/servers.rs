//! The servers of a gateway by the port that it listens at, those left out that others are in the way of.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::istio::gateway::{Gateway, Server, ServerTlsSettings, TlsMode};
use crate::model::protocol::Protocol;
use crate::model::workloads::selects;
use crate::translate::egress::View;
use crate::translate::inbound;
use crate::translate::service::{self, ANY_ADDRESS, Service};

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
    let mut gateways: Vec<_> = view
        .mesh
        .all::<Gateway>()
        .filter(|it| selects(&it.spec.selector, &view.proxy.labels))
        .collect();
    gateways.sort_by_cached_key(|it| {
        let age = it.object.metadata.creation_timestamp.clone().unwrap_or_default();
        (age, it.name().to_owned(), it.namespace().to_owned())
    });
    let mut ports: Vec<Port<'m>> = Vec::new();
    for gateway in gateways {
        for spec in &gateway.spec.servers {
            let Some(port) = &spec.port else { continue };
            let number = listened(view, port.number);
            let served = served(spec, gateway.namespace(), gateway.name(), port.number, number);
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

/// The port that a gateway's workload listens at for a port of its service.
fn listened(view: &View<'_>, number: u32) -> u32 {
    let targets = inbound::targets(view.mesh, view.proxy);
    let is_it = |(service, port): &(&Service, &service::Port)| {
        port.number == number
            && view
                .service(&service.host)
                .is_some_and(|it| Arc::ptr_eq(&it.object, &service.object))
    };
    let known = targets.iter().find(|(_, of)| of.iter().any(is_it));
    known.map_or(number, |(target, _)| *target)
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
