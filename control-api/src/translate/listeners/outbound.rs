//! Which listeners a sidecar has, and what becomes of several services at one address.

mod chains;

use std::collections::BTreeMap;

use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};
use xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use super::chain::{Chain, Content};
use super::{ACCEPTED_AT_ONCE, http, tcp};
use crate::model::protocol::Protocol;
use crate::translate::egress::{Egress, View};
use crate::translate::proxy::Interception;
use crate::translate::service::{ANY_ADDRESS, Port, Resolution, Service};
use crate::translate::values;

/// Where a workload listens for its own proxy only.
const LOOPBACK: &str = "127.0.0.1";
/// What the TLS inspector reads at first: most ClientHellos are no longer.
pub(in crate::translate) const HELLO: u32 = 512;

/// A listener on the way.
#[derive(Debug)]
pub(in crate::translate) struct Entry {
    bind: String,
    port: u32,
    /// Whether it has a socket of its own.
    bound: bool,
    /// What is spoken there; unknown where the first bytes tell.
    protocol: Protocol,
    /// What the first service speaks.
    http: Protocol,
    chains: Vec<Chain>,
    /// Whether a `Sidecar` has settled what is there.
    locked: bool,
}

/// A service's port, and where it is listened for.
#[derive(Clone)]
struct Wanted<'a, 'm> {
    egress: &'a Egress<'m>,
    service: &'a Service,
    port: Port,
    /// A settled address; none for that of the service.
    bind: Option<String>,
    bound: bool,
    /// Ranges that the connection must be meant for.
    ranges: Vec<String>,
}

type Entries = BTreeMap<(String, u32), Entry>;

/// The listeners of a proxy.
pub(super) fn entries(view: &View<'_>) -> Vec<Entry> {
    let mut entries = Entries::new();
    for egress in &view.egress {
        let capture_none =
            view.proxy.interception == Interception::None || egress.is_not_captured();
        let is_path = egress.bind().is_some_and(|it| it.starts_with("unix://"));
        let bound = capture_none || is_path;
        let bind = egress.bind().map(ToOwned::to_owned);
        let bind = bind.or_else(|| bound.then(|| LOOPBACK.to_owned()));
        if let (Some(number), Some(protocol)) = (egress.port(), egress.protocol()) {
            let port = Port { name: String::new(), number, protocol, target: number };
            for service in &egress.services {
                let port = port.clone();
                let (bind, ranges) = (bind.clone(), Vec::new());
                add(view, &mut entries, Wanted { egress, service, port, bind, bound, ranges });
            }
            continue;
        }
        entries.values_mut().for_each(|entry| entry.locked = true);
        for service in &egress.services {
            for port in &service.ports {
                let (bind, ranges, port) = (bind.clone(), Vec::new(), port.clone());
                let wanted = Wanted { egress, service, port, bind, bound, ranges };
                add_by_address(view, &mut entries, &wanted);
            }
        }
    }
    entries.into_values().collect()
}

/// A port of a service, at each of its addresses. Those of a headless service are its endpoints'.
fn add_by_address<'m>(view: &View<'m>, entries: &mut Entries, wanted: &Wanted<'_, 'm>) {
    let service = wanted.service;
    let is_http = wanted.port.protocol.is_http();
    if wanted.bind.is_some() || is_http {
        return add(view, entries, wanted.clone());
    }
    let headless = service.resolution == Resolution::Passthrough
        && service.addresses.iter().all(|it| it == ANY_ADDRESS);
    if !headless {
        for address in &service.addresses {
            let mut wanted = wanted.clone();
            if address.contains('/') {
                wanted.bind = Some(ANY_ADDRESS.to_owned());
                wanted.ranges = vec![address.clone()];
            } else {
                wanted.bind = Some(address.clone());
            }
            add(view, entries, wanted);
        }
        return;
    }
    let endpoints = view.mesh.endpoints(service, &wanted.port);
    let addresses = endpoints.iter().filter(|it| it.address.parse::<std::net::IpAddr>().is_ok());
    let addresses: Vec<_> = addresses.collect();
    if !service.is_kubernetes() && addresses.is_empty() {
        let bind = Some(ANY_ADDRESS.to_owned());
        return add(view, entries, Wanted { bind, ..wanted.clone() });
    }
    for endpoint in addresses {
        // What it says to itself does not leave it.
        if view.proxy.addresses.first() != Some(&endpoint.address) {
            let bind = Some(endpoint.address.clone());
            add(view, entries, Wanted { bind, ..wanted.clone() });
        }
    }
}

fn add<'m>(view: &View<'m>, entries: &mut Entries, mut wanted: Wanted<'_, 'm>) {
    let protocol = wanted.port.protocol;
    if wanted.service.resolution == Resolution::Alias || protocol == Protocol::Udp {
        return;
    }
    let bind = wanted.bind.take().unwrap_or_else(|| ANY_ADDRESS.to_owned());
    if bind == ANY_ADDRESS && view.proxy.reserved_ports.contains(&wanted.port.number) {
        return;
    }
    let key = (bind.clone(), wanted.port.number);
    let current = entries.get(&key);
    if current.is_some_and(|it| it.locked || conflicts(it.protocol, protocol)) {
        return;
    }
    let is_shared = bind == ANY_ADDRESS;
    let (chains, spoken) = if protocol.is_http() {
        // Several HTTP services are told apart by their routes.
        if current.is_some_and(|it| !it.protocol.is_tcp()) {
            return;
        }
        let chain = http_chain(&wanted, &bind);
        if is_shared && protocol != Protocol::HttpProxy {
            (vec![chain.told_by_first_bytes()], Protocol::Unknown)
        } else {
            (vec![chain], protocol)
        }
    } else {
        let mut chains = chains::tcp(view, &wanted, &bind);
        if protocol == Protocol::Unknown {
            if current.is_some_and(|it| it.protocol == Protocol::Unknown) {
                return;
            }
            chains.push(http_chain(&wanted, &bind).told_by_first_bytes());
        }
        (chains, protocol)
    };
    match entries.get_mut(&key) {
        // What is told by the first bytes does as well for HTTP alone.
        Some(entry) if !(protocol == Protocol::Unknown && entry.protocol.is_http()) => {
            if entry.protocol.is_tcp() != spoken.is_tcp() {
                entry.protocol = Protocol::Unknown;
            }
            entry.merge(chains);
        }
        _ => {
            let (port, bound) = (wanted.port.number, wanted.bound);
            let (http, locked) = (protocol, false);
            let entry = Entry { bind, port, bound, protocol: spoken, http, chains, locked };
            entries.insert(key, entry);
        }
    }
}

/// Servers that speak first cannot share a port with others, whose clients' first bytes would be waited for.
fn conflicts(one: Protocol, other: Protocol) -> bool {
    let first = |it| matches!(it, Protocol::Mongo | Protocol::Mysql);
    one != other && (first(one) || first(other))
}

fn http_chain(wanted: &Wanted<'_, '_>, bind: &str) -> Chain {
    let number = wanted.port.number;
    let routes = if number == 0 {
        bind.to_owned()
    } else if wanted.port.protocol == Protocol::Unknown && bind != ANY_ADDRESS {
        format!("{}:{number}", wanted.service.host)
    } else {
        number.to_string()
    };
    Chain { content: Content::Http(routes), ..Chain::default() }
}

impl Entry {
    /// The route configurations that it asks for.
    pub(super) fn route_names(&self) -> impl Iterator<Item = String> {
        self.chains.iter().filter_map(|chain| match &chain.content {
            Content::Http(name) => Some(name.clone()),
            Content::Tcp(_) => None,
        })
    }

    /// Adds chains for connections that no chain is for yet.
    fn merge(&mut self, chains: Vec<Chain>) {
        for chain in chains {
            if !self.chains.iter().any(|it| it.is_for_the_same(&chain)) {
                self.chains.push(chain);
            }
        }
    }

    /// The listener.
    pub(super) fn finish(self, view: &View<'_>) -> Listener {
        let name = format!("{}_{}", self.bind, self.port);
        let mut listener = Listener {
            address: Some(values::address(&self.bind, self.port)),
            listener_filters: self.inspectors(),
            listener_filters_timeout: Some(self.time_to_tell(view)),
            traffic_direction: TrafficDirection::Outbound.into(),
            continue_on_listener_filters_timeout: true,
            ..Listener::default()
        };
        if self.bound {
            listener.max_connections_to_accept_per_socket_event = Some(ACCEPTED_AT_ONCE);
        } else {
            listener.bind_to_port = Some(false);
        }
        for mut chain in self.chains {
            let is_default = chain.is_for_all();
            let filters = match std::mem::take(&mut chain.content) {
                Content::Tcp(filters) => filters,
                Content::Http(routes) => vec![http::outbound(view, &name, self.http, &routes)],
            };
            let chain = chain.finish(filters);
            if is_default {
                listener.default_filter_chain = Some(chain);
            } else {
                listener.filter_chains.push(chain);
            }
        }
        if listener.filter_chains.is_empty() {
            listener.filter_chains.extend(listener.default_filter_chain.take());
        } else if listener.default_filter_chain.is_none() {
            listener.default_filter_chain = Some(FilterChain {
                name: "PassthroughFilterChain".to_owned(),
                filter_chain_match: Some(FilterChainMatch::default()),
                filters: tcp::others(view),
                ..FilterChain::default()
            });
        }
        listener.name = name;
        listener
    }

    fn needs_http(&self) -> bool {
        self.chains.iter().any(|chain| !chain.application_protocols.is_empty())
    }

    fn inspectors(&self) -> Vec<ListenerFilter> {
        let mut filters = Vec::new();
        if self.chains.iter().any(|chain| !chain.server_names.is_empty()) {
            let tls = TlsInspector { initial_read_buffer_size: Some(HELLO) };
            filters.push(inspector("envoy.filters.listener.tls_inspector", &tls));
        }
        if self.needs_http() {
            let http = "envoy.filters.listener.http_inspector";
            filters.push(inspector(http, &HttpInspector::default()));
        }
        filters
    }

    /// How long the first bytes are waited for; zero for ever.
    fn time_to_tell(&self, view: &View<'_>) -> prost_types::Duration {
        if self.needs_http() {
            values::duration(view.mesh.config.protocol_detection_timeout)
        } else {
            prost_types::Duration::default()
        }
    }
}

/// A listener filter.
pub(in crate::translate) fn inspector<M: prost::Message + prost::Name>(
    name: &str,
    config: &M,
) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(values::any(config))),
        ..ListenerFilter::default()
    }
}
