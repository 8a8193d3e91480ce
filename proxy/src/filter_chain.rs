//! Which filter chain a connection gets (Envoy `FilterChainMatch`).
//!
//! Eight questions are asked in Envoy's order, each narrowing the chains to those with the most specific
//! answer. There is no going back: a chain that wins an early question and loses a later one
//! leaves the connection without a chain, as in Envoy.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::address::CidrRange;
use crate::config::listener::{FilterChainMatch, SourceType};
use crate::config::{HashMap, Invalid};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Where the client meant to connect to.
    pub destination: SocketAddr,
    /// Who the client is, as a PROXY header or the socket says.
    pub source: SocketAddr,
    /// Who the socket's other end is.
    pub direct_source: SocketAddr,
    /// The server name asked for, in lower case.
    pub server_name: Option<&'a str>,
    /// `tls` or `raw_buffer`; the latter also when nobody looked.
    pub transport_protocol: &'a str,
    /// The protocols offered by ALPN, in the client's order.
    pub application_protocols: &'a [Box<[u8]>],
}

/// The match rules of one listener, compiled.
#[derive(Debug, Default)]
pub struct FilterChainMatcher {
    by_port: Keyed<u16, Ranges<Keyed<Box<str>, ByProtocol>>>,
}

/// The questions from the transport protocol on.
type ByProtocol = Keyed<Box<str>, Keyed<Box<[u8]>, Ranges<BySourceType>>>;

impl FilterChainMatcher {
    /// Compiles the rules of all chains, in configuration order. The error's path is relative to the
    /// listener.
    ///
    /// # Errors
    /// Two chains that match the same connection equally well, and server names with a `*` that is
    /// not a whole first label.
    pub fn compile(rules: &[&FilterChainMatch]) -> Result<Self, Invalid> {
        let mut matcher = Self::default();
        for (position, rule) in rules.iter().enumerate() {
            let path = format!("filter_chains[{position}].filter_chain_match");
            matcher.insert(rule, position).map_err(|invalid| invalid.under(&path))?;
        }
        Ok(matcher)
    }

    /// The position of the chain that takes a connection with these facts; none leaves it to the
    /// default chain.
    pub fn pick(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let destination = facts.destination.ip().to_canonical();
        let source = facts.source.ip().to_canonical();
        let names = self.by_port.find(&facts.destination.port())?.find(destination)?;
        let protocols = find_server_name(names, facts.server_name.unwrap_or_default())?;
        let application = protocols.find(facts.transport_protocol)?;
        let mut offered = facts.application_protocols.iter();
        let direct = offered
            .find_map(|protocol| application.exact.get(protocol))
            .or(application.any.as_ref())?;
        let by_type = direct.find(facts.direct_source.ip().to_canonical())?;
        *by_type.find(source, destination)?.find(source)?.find(&facts.source.port())?
    }

    fn insert(&mut self, rule: &FilterChainMatch, position: usize) -> Result<(), Invalid> {
        let names = rule.server_names.iter().enumerate();
        let names = names.map(|(index, name)| server_name_key(name, index));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        for destination in or_any(&rule.destination) {
            let by_name = self.by_port.entry(rule.destination_port).entry(destination.copied());
            for name in or_any(&names) {
                insert_protocols(by_name.entry(name.cloned()), rule, position)?;
            }
        }
        Ok(())
    }
}

fn insert_protocols(
    by_protocol: &mut ByProtocol,
    rule: &FilterChainMatch,
    position: usize,
) -> Result<(), Invalid> {
    let by_application = by_protocol.entry(rule.transport_protocol.clone());
    for protocol in or_any(&rule.application_protocols) {
        let protocol = protocol.map(|protocol| protocol.as_bytes().into());
        let by_direct = by_application.entry(protocol);
        for range in or_any(&rule.direct_source) {
            let by_type = by_direct.entry(range.copied());
            insert_source(by_type.entry(rule.source_type), rule, position)?;
        }
    }
    Ok(())
}

fn insert_source(
    by_source: &mut BySource,
    rule: &FilterChainMatch,
    position: usize,
) -> Result<(), Invalid> {
    for range in or_any(&rule.source) {
        let by_port = by_source.entry(range.copied());
        for port in or_any(&rule.source_ports) {
            let chain = by_port.entry(port.copied());
            if let Some(other) = chain.replace(position) {
                return Err(Invalid::new(
                    "",
                    format!(
                        "filter_chains[{other}] matches the same connections; \
                         make one of them more specific"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Each item, or a single none where there are none: an empty list matches anything.
fn or_any<T>(items: &[T]) -> impl Iterator<Item = Option<&T>> {
    items.iter().map(Some).chain(items.is_empty().then_some(None))
}

/// `*.example.com` becomes `.example.com`; anything else stays.
fn server_name_key(name: &str, index: usize) -> Result<Box<str>, Invalid> {
    let key = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    if key.contains('*') {
        let reason = format!("`{name}`: a `*` can only stand for the whole first label");
        return Err(Invalid::new(format!("server_names[{index}]"), reason));
    }
    Ok(key.into())
}

/// The exact name first, then its parents from the longest on, then what asks for no name.
fn find_server_name<'a, T>(names: &'a Keyed<Box<str>, T>, name: &str) -> Option<&'a T> {
    let parents = name.char_indices().filter(|(at, letter)| *at > 0 && *letter == '.');
    names
        .exact
        .get(name)
        .or_else(|| {
            let mut parents = parents.filter_map(|(at, _)| name.get(at..));
            parents.find_map(|parent| names.exact.get(parent))
        })
        .or(names.any.as_ref())
}

/// What follows for each exact value, and for all others.
#[derive(Debug)]
struct Keyed<K, T> {
    exact: HashMap<K, T>,
    any: Option<T>,
}

impl<K: Eq + Hash, T: Default> Keyed<K, T> {
    fn entry(&mut self, key: Option<K>) -> &mut T {
        match key {
            Some(key) => self.exact.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        self.exact.get(key).or(self.any.as_ref())
    }
}

impl<K, T> Default for Keyed<K, T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), any: None }
    }
}

/// What follows for each address range, longest first, and for all other addresses.
#[derive(Debug)]
struct Ranges<T> {
    longest_first: Vec<(CidrRange, T)>,
    any: Option<T>,
}

impl<T: Default> Ranges<T> {
    fn entry(&mut self, range: Option<CidrRange>) -> &mut T {
        let Some(range) = range else { return self.any.get_or_insert_default() };
        let known = self.longest_first.iter().position(|(known, _)| *known == range);
        let at = known.unwrap_or_else(|| {
            let at =
                self.longest_first.partition_point(|(other, _)| other.length() >= range.length());
            self.longest_first.insert(at, (range, T::default()));
            at
        });
        &mut self.longest_first[at].1
    }

    fn find(&self, address: IpAddr) -> Option<&T> {
        let mut ranges = self.longest_first.iter();
        let found = ranges.find(|(range, _)| range.contains(address));
        found.map(|(_, next)| next).or(self.any.as_ref())
    }
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { longest_first: Vec::new(), any: None }
    }
}

/// The last two questions: source address and source port.
type BySource = Ranges<Keyed<u16, Option<usize>>>;

/// What follows for local clients, for others, and for all.
#[derive(Debug, Default)]
struct BySourceType {
    local: Option<BySource>,
    external: Option<BySource>,
    any: Option<BySource>,
}

impl BySourceType {
    fn entry(&mut self, kind: SourceType) -> &mut BySource {
        let slot = match kind {
            SourceType::SameIpOrLoopback => &mut self.local,
            SourceType::External => &mut self.external,
            SourceType::Any => &mut self.any,
        };
        slot.get_or_insert_default()
    }

    fn find(&self, source: IpAddr, destination: IpAddr) -> Option<&BySource> {
        // Of the loopback addresses only the two usual ones, as in Envoy.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let local = loopback.contains(&source) || source == destination;
        let special = if local { &self.local } else { &self.external };
        special.as_ref().or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests;
