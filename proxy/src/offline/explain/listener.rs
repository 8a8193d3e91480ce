//! Which listener takes a connection, which of its filter chains, and where that leads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::asked::Asked;
use super::cluster::Bound;
use super::report::{Choice, Other, Step};
use super::route::{self, Verdict};
use super::{Arguments, chain};
use crate::config::address::HostAddress;
use crate::config::listener::ListenerFilterKind;
use crate::discovery::{Assembler, Written};
use crate::filter_chain::ConnectionFacts;
use crate::net::listening::NOWHERE;
use crate::snapshot::{FilterChain, Listener, Terminal};

/// Where a request has come to.
pub(super) enum End {
    /// No further.
    Refused(String),
    /// The proxy answers it.
    Answered(String),
    /// To a cluster.
    Cluster(Bound),
}

/// The steps from the socket to a cluster.
pub(super) fn explain(
    assembler: &Assembler,
    asked: &Asked,
    arguments: &Arguments,
) -> (Vec<Step>, End) {
    let mut listeners: Vec<&Arc<Listener>> = assembler.snapshot().listeners.values().collect();
    listeners.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    let mut step = Step { kind: "listener", ..Step::default() };
    let has_port = listeners.iter().any(|it| port(&address(it, asked)) == Some(asked.port));
    for listener in listeners {
        let at = address(listener, asked);
        let port = port(&at);
        let is_wanted = match &arguments.listener {
            Some(name) => **name == *listener.config.name,
            None => !has_port || port == Some(asked.port),
        };
        let name = format!("{} on {at}", listener.config.name);
        let place = assembler.place(Written::Listener(&listener.config.name), "");
        let why = if !is_wanted {
            match &arguments.listener {
                Some(_) => "--listener names another".to_owned(),
                None => format!("the request asks for port {}", asked.port),
            }
        } else if step.taken.is_some() {
            "another listener takes the request too; choose with --listener".to_owned()
        } else if !listener.config.bind_to_port && arguments.listener.is_none() {
            "bind_to_port is false: it takes only what another listener hands on; ask for it with \
             --listener"
                .to_owned()
        } else if let Some(why) = unfit(listener, asked) {
            why
        } else {
            let mut details = Vec::new();
            if port != Some(asked.port) {
                details.push(format!("no listener has port {}: asked as if it had", asked.port));
            }
            if listener.config.use_original_dst {
                details.push(
                    "use_original_dst: a redirected connection goes on to the listener of its \
                     original address, see --listener"
                        .to_owned(),
                );
            }
            step.taken = Some(Choice { name: listener.config.name.to_string(), place, details });
            continue;
        };
        step.others.push(Other { name, place, why });
    }
    let Some(taken) = &step.taken else {
        let why = "no listener takes such a connection".to_owned();
        return (vec![step], End::Refused(why));
    };
    let snapshot = assembler.snapshot();
    let Some(listener) = snapshot.listeners.get(&*taken.name).map(Arc::clone) else {
        return (vec![step], End::Refused(String::new()));
    };
    let (steps, end) = through(assembler, &listener, asked, arguments.random);
    (std::iter::once(step).chain(steps).collect(), end)
}

/// The listener's address that a connection is made to: the one with the port asked for, or the first.
fn address(listener: &Listener, asked: &Asked) -> HostAddress {
    let mut all = listener.config.addresses.iter().map(|it| &it.address);
    let found = all.find(|it| port(it) == Some(asked.port));
    found.unwrap_or_else(|| listener.config.main_address()).clone()
}

/// Its port, if it has one.
fn port(address: &HostAddress) -> Option<u16> {
    address.ip().map(|address| address.port())
}

/// Why no chain of the listener could serve what is asked, as far as TLS goes.
fn unfit(listener: &Listener, asked: &Asked) -> Option<String> {
    let facts = Facts::new(listener, asked);
    let chain = pick(listener, &facts.of(asked))?;
    let is_http = matches!(chain.terminal, Terminal::Http(_));
    match (chain.config.tls.is_some(), asked.is_tls) {
        (true, false) => Some("its chain wants TLS, the request is plain text".to_owned()),
        (false, true) if is_http => {
            Some("its chain takes plain text, the request comes over TLS".to_owned())
        }
        _ => None,
    }
}

/// What a connection for a request would be like.
struct Facts {
    destination: SocketAddr,
    transport_protocol: &'static str,
    application_protocols: Vec<Box<[u8]>>,
}

impl Facts {
    fn new(listener: &Listener, asked: &Asked) -> Self {
        let config = &listener.config;
        let at = address(listener, asked).ip().unwrap_or(NOWHERE);
        let ip = match at.ip() {
            ip if !ip.is_unspecified() => ip,
            _ => asked.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let inspects = |wanted: fn(&ListenerFilterKind) -> bool| {
            config.listener_filters.iter().any(|filter| wanted(&filter.kind))
        };
        let is_seen = asked.is_tls && inspects(|it| matches!(it, ListenerFilterKind::TlsInspector));
        let is_read =
            !asked.is_tls && inspects(|it| matches!(it, ListenerFilterKind::HttpInspector));
        let protocols: &[&[u8]] = match (is_seen, is_read) {
            (true, _) => &[b"h2", b"http/1.1"],
            (false, true) => &[b"http/1.1"],
            (false, false) => &[],
        };
        Self {
            destination: SocketAddr::new(ip, at.port()),
            transport_protocol: if is_seen { "tls" } else { "raw_buffer" },
            application_protocols: protocols.iter().map(|it| Box::from(*it)).collect(),
        }
    }

    fn of<'a>(&'a self, asked: &'a Asked) -> ConnectionFacts<'a> {
        let is_seen = self.transport_protocol == "tls";
        ConnectionFacts {
            destination: self.destination,
            source: asked.source,
            direct_source: asked.source,
            server_name: asked.server_name().filter(|_| is_seen),
            transport_protocol: self.transport_protocol,
            application_protocols: &self.application_protocols,
        }
    }
}

fn pick<'a>(listener: &'a Listener, facts: &ConnectionFacts<'_>) -> Option<&'a Arc<FilterChain>> {
    match listener.matcher.pick(facts) {
        Some(index) => listener.chains.get(index),
        None => listener.default_chain.as_ref(),
    }
}

/// The steps through a listener's chains.
fn through(
    assembler: &Assembler,
    listener: &Listener,
    asked: &Asked,
    random: u64,
) -> (Vec<Step>, End) {
    let name = &listener.config.name;
    let facts = Facts::new(listener, asked);
    let taken = pick(listener, &facts.of(asked));
    let mut step = Step { kind: "filter chain", ..Step::default() };
    let mut path = String::new();
    let numbered = listener.chains.iter().enumerate();
    let chains = numbered.map(|(at, chain)| (format!("filter_chains[{at}]"), chain));
    let default = listener.default_chain.iter();
    let default = default.map(|chain| ("default_filter_chain".to_owned(), chain));
    for (at, chain) in chains.chain(default) {
        let place = assembler.place(Written::Listener(name), &at);
        let chain_name = chain.config.name.to_string();
        if taken.is_some_and(|taken| Arc::ptr_eq(taken, chain)) {
            path = format!("{at}.{}", chain.config.terminal_path());
            step.taken = Some(Choice { name: chain_name, place, details: Vec::new() });
            continue;
        }
        let why = match chain::mismatch(&chain.config.matcher, &facts.of(asked)) {
            Some(why) => why,
            None if taken.is_some() => "another chain is more specific".to_owned(),
            None => {
                "it matches, but lost an earlier condition to a chain that lost a later one: there \
                     is no going back"
                    .to_owned()
            }
        };
        step.others.push(Other { name: chain_name, place, why });
    }
    let Some(chain) = taken else {
        let why = "the connection is closed: no filter chain matches it".to_owned();
        return (vec![step], End::Refused(why));
    };
    match &chain.terminal {
        Terminal::Tcp(tcp) => {
            let request = "the connection's bytes".to_owned();
            let (name, own) = tcp.cluster.choose(random);
            let wanted = own.cloned().map(Arc::new).or_else(|| tcp.metadata_match.clone());
            let (cluster, why) = (name.to_owned(), Vec::new());
            let missing = "the connection is closed (NC)".to_owned();
            (vec![step], End::Cluster(Bound { cluster, wanted, why, request, missing }))
        }
        Terminal::Http(http) => {
            let place = (&**name, facts.destination, &*path);
            let (steps, verdict) = route::explain(assembler, http, place, asked, random);
            let end = match verdict {
                Verdict::Forward(bound) => End::Cluster(bound),
                Verdict::Answer(answer) => End::Answered(answer),
                Verdict::Refuse(why) => End::Refused(why),
            };
            (std::iter::once(step).chain(steps).collect(), end)
        }
    }
}
