//! A filter chain on the way: what it is for, and what becomes of its connections.

use std::collections::BTreeSet;

use xds::envoy::config::core::v3::{CidrRange, Metadata, TransportSocket};
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};

use crate::translate::service::ANY_ADDRESS;

/// The time for a TLS handshake.
const HANDSHAKE_TIME: prost_types::Duration = prost_types::Duration { seconds: 15, nanos: 0 };

/// A filter chain on the way.
#[derive(Debug, Clone, Default)]
pub(in crate::translate) struct Chain {
    /// Server names that TLS must ask for.
    pub(in crate::translate) server_names: Vec<String>,
    /// Addresses, or ranges of them, that the connection must be meant for.
    pub(in crate::translate) destinations: Vec<String>,
    /// Protocols, one of which the connection must speak.
    pub(in crate::translate) application_protocols: Vec<&'static str>,
    /// `tls`, `raw_buffer`, or empty for both.
    pub(in crate::translate) transport_protocol: &'static str,
    /// Where it comes from, for people.
    pub(in crate::translate) metadata: Option<Metadata>,
    /// TLS that ends here.
    pub(in crate::translate) transport_socket: Option<TransportSocket>,
    /// What becomes of its connections.
    pub(in crate::translate) content: Content,
}

/// What becomes of connections.
#[derive(Debug, Clone)]
pub(in crate::translate) enum Content {
    /// These filters have them.
    Tcp(Vec<Filter>),
    /// They are HTTP, routed by the route configuration of this name.
    Http(String),
}

impl Default for Content {
    fn default() -> Self {
        Self::Tcp(Vec::new())
    }
}

impl Chain {
    /// The same for HTTP in the clear only, as the first bytes tell.
    pub(in crate::translate) fn told_by_first_bytes(mut self) -> Self {
        self.application_protocols = vec!["http/1.1", "h2c"];
        self.transport_protocol = "raw_buffer";
        self
    }

    /// Whether it takes every connection.
    pub(in crate::translate) fn is_for_all(&self) -> bool {
        let any_name =
            self.server_names.is_empty() || self.server_names.iter().any(|name| name == "*");
        any_name
            && self.application_protocols.is_empty()
            && self.transport_protocol.is_empty()
            && self.destinations.is_empty()
    }

    /// Whether both are for the same connections, which Envoy refuses.
    pub(in crate::translate) fn is_for_the_same(&self, other: &Self) -> bool {
        let names = |it: &Self| -> BTreeSet<String> {
            it.server_names.iter().filter(|name| *name != "*").cloned().collect()
        };
        let ranges = |it: &Self| -> BTreeSet<(String, u32)> {
            it.destinations.iter().filter_map(|it| range(it)).map(|it| masked(&it)).collect()
        };
        self.transport_protocol == other.transport_protocol
            && self.application_protocols == other.application_protocols
            && names(self) == names(other)
            && ranges(self) == ranges(other)
    }

    /// The chain with these filters.
    pub(in crate::translate) fn finish(self, filters: Vec<Filter>) -> FilterChain {
        let filter_chain_match = (!self.is_for_all()).then(|| self.matched());
        FilterChain {
            filter_chain_match,
            filters,
            metadata: self.metadata,
            transport_socket: self.transport_socket,
            transport_socket_connect_timeout: Some(HANDSHAKE_TIME),
            ..FilterChain::default()
        }
    }

    fn matched(&self) -> FilterChainMatch {
        let mut server_names = self.server_names.clone();
        server_names.sort();
        if server_names.iter().any(|name| name == "*") {
            server_names.clear();
        }
        let mut destinations = self.destinations.clone();
        destinations.sort();
        FilterChainMatch {
            server_names,
            prefix_ranges: destinations.iter().filter_map(|it| range(it)).collect(),
            transport_protocol: self.transport_protocol.to_owned(),
            application_protocols: self
                .application_protocols
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..FilterChainMatch::default()
        }
    }
}

/// An address as a range of one. None for the address that stands for all.
fn range(text: &str) -> Option<CidrRange> {
    let (first, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: std::net::IpAddr = first.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = if bits.is_empty() { all } else { bits.parse().ok()? };
    (first != ANY_ADDRESS)
        .then(|| CidrRange { address_prefix: first.to_owned(), prefix_len: Some(prefix_len) })
}

/// The range by its first address.
fn masked(range: &CidrRange) -> (String, u32) {
    let bits = range.prefix_len.unwrap_or(0);
    let first = match range.address_prefix.parse() {
        Ok(std::net::IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            std::net::Ipv4Addr::from(u32::from(address) & mask).to_string()
        }
        Ok(std::net::IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(address) & mask).to_string()
        }
        Err(_) => range.address_prefix.clone(),
    };
    (first, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(destination: &str) -> Chain {
        Chain { destinations: vec![destination.to_owned()], ..Chain::default() }
    }

    #[test]
    fn ranges_are_compared_by_what_they_hold() {
        assert!(at("1.2.3.4/8").is_for_the_same(&at("1.5.6.7/8")));
        assert!(!at("1.2.3.4/8").is_for_the_same(&at("1.2.3.4/16")));
        assert!(at("1.2.3.4").is_for_the_same(&at("1.2.3.4/32")));
        assert!(at("fd00::1/64").is_for_the_same(&at("fd00::2/64")));
        assert!(at("0.0.0.0").is_for_the_same(&Chain::default()));
    }

    #[test]
    fn a_star_is_every_name() {
        let chain = Chain { server_names: vec!["*".into()], ..Chain::default() };
        assert!(chain.is_for_all());
        assert_eq!(chain.finish(Vec::new()).filter_chain_match, None);
        assert!(!at("1.2.3.4").is_for_all());
    }
}
