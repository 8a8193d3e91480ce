//! Which listener and which of its filter chains a connection comes to.

use std::net::IpAddr;

use prost::Message;
use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::{Address, CidrRange};
use xds::envoy::config::listener::v3::filter::ConfigType;
use xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use xds::envoy::extensions::filters::network::rbac::v3::Rbac;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(super) struct Connection<'a> {
    /// Where it goes; none for a service without an address of its own.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u32,
    /// The name that its TLS asks for.
    pub(super) server_name: Option<&'a str>,
    /// `tls` or `raw_buffer`.
    pub(super) transport: &'a str,
    /// What it offers to speak, or turns out to speak.
    pub(super) protocols: &'a [&'a str],
}

/// What a filter chain does with a connection in the end.
#[derive(Debug)]
pub(super) enum End {
    Http(Box<HttpConnectionManager>),
    Tcp(Box<TcpProxy>),
}

/// Address and port of a socket.
pub(super) fn socket(address: Option<&Address>) -> Option<(String, u32)> {
    match address?.address.as_ref()? {
        AddressKind::SocketAddress(socket) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => Some((socket.address.clone(), port)),
            _ => None,
        },
        _ => None,
    }
}

/// The listener for a connection that a sidecar takes over: that of the address, that of the port, or the one for all.
pub(super) fn outbound<'l>(
    listeners: &'l [Listener],
    connection: &Connection<'_>,
) -> Option<&'l Listener> {
    let at = |wanted: &dyn Fn(&str) -> bool| {
        listeners.iter().find(|it| {
            socket(it.address.as_ref())
                .is_some_and(|(address, port)| port == connection.port && wanted(&address))
        })
    };
    let own = connection.address.map(|it| it.to_string());
    at(&|it| Some(it) == own.as_deref())
        .or_else(|| at(&|it| it == "0.0.0.0" || it == "::"))
        .or_else(|| listeners.iter().find(|it| it.name == "virtualOutbound"))
}

/// The chain that a connection comes to: each property narrows down what is left, and what it has left out does not come
/// back.
pub(super) fn chain<'l>(
    listener: &'l Listener,
    connection: &Connection<'_>,
) -> Option<&'l FilterChain> {
    let mut left: Vec<&FilterChain> = listener.filter_chains.iter().collect();
    for property in [port, address, name, transport, protocol] {
        let none = FilterChainMatch::default();
        let of = |it: &FilterChain| {
            property(it.filter_chain_match.as_ref().unwrap_or(&none), connection)
        };
        let best = left.iter().filter_map(|it| of(it)).max();
        left.retain(|it| best.is_some() && of(it) == best);
    }
    left.first().copied().or(listener.default_filter_chain.as_ref())
}

/// How closely something matches: 0 if it is not asked for; none if it does not match.
type Closeness = Option<usize>;

fn if_asked(is_asked: bool, closeness: Closeness) -> Closeness {
    if is_asked { closeness } else { Some(0) }
}

fn port(matched: &FilterChainMatch, connection: &Connection<'_>) -> Closeness {
    let wanted = matched.destination_port;
    if_asked(wanted.is_some(), (wanted == Some(connection.port)).then_some(1))
}

fn address(matched: &FilterChainMatch, connection: &Connection<'_>) -> Closeness {
    let ranges = matched.prefix_ranges.iter();
    let length = |it| Some(length_if_within(it, connection.address?)? as usize + 1);
    if_asked(!matched.prefix_ranges.is_empty(), ranges.filter_map(length).max())
}

fn name(matched: &FilterChainMatch, connection: &Connection<'_>) -> Closeness {
    let names = matched.server_names.iter();
    let closeness = names.filter_map(|it| closeness(it, connection.server_name?)).max();
    if_asked(!matched.server_names.is_empty(), closeness)
}

fn transport(matched: &FilterChainMatch, connection: &Connection<'_>) -> Closeness {
    let wanted = matched.transport_protocol.as_str();
    if_asked(!wanted.is_empty(), (wanted == connection.transport).then_some(1))
}

fn protocol(matched: &FilterChainMatch, connection: &Connection<'_>) -> Closeness {
    let wanted = &matched.application_protocols;
    let spoken = wanted.iter().any(|it| connection.protocols.contains(&it.as_str()));
    if_asked(!wanted.is_empty(), spoken.then_some(1))
}

/// The length of a range, if an address is within it.
fn length_if_within(range: &CidrRange, address: IpAddr) -> Option<u32> {
    let first: IpAddr = range.address_prefix.parse().ok()?;
    let bits = |it: IpAddr| match it {
        IpAddr::V4(it) => (u128::from(it.to_bits()) << 96, 32),
        IpAddr::V6(it) => (it.to_bits(), 128),
    };
    let ((first, width), (address, own_width)) = (bits(first), bits(address));
    let length = range.prefix_len.unwrap_or(0).min(width);
    let differ = (first ^ address).checked_shr(128 - length).unwrap_or(0);
    (width == own_width && differ == 0).then_some(length)
}

/// How closely a pattern names a server.
fn closeness(pattern: &str, name: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        None => (pattern == name).then_some(usize::MAX),
        Some(end) => name.ends_with(end).then_some(end.len() + 1),
    }
}

/// Where a chain leads.
pub(super) fn end(chain: &FilterChain) -> Option<End> {
    chain.filters.iter().find_map(|filter| {
        let ConfigType::TypedConfig(any) = filter.config_type.as_ref()?;
        if any.type_url.ends_with(".HttpConnectionManager") {
            let manager = HttpConnectionManager::decode(&*any.value).ok()?;
            return Some(End::Http(Box::new(manager)));
        }
        if any.type_url.ends_with(".TcpProxy") {
            return Some(End::Tcp(Box::new(TcpProxy::decode(&*any.value).ok()?)));
        }
        None
    })
}

/// The filters of a chain that decide on connections.
pub(super) fn policies(chain: &FilterChain) -> Vec<Rbac> {
    let configs = chain.filters.iter().filter_map(|it| it.config_type.as_ref());
    let configs = configs.map(|ConfigType::TypedConfig(any)| any);
    let rbac = configs.filter(|any| any.type_url.ends_with(".network.rbac.v3.RBAC"));
    rbac.filter_map(|any| Rbac::decode(&*any.value).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: &str, length: u32) -> CidrRange {
        CidrRange { address_prefix: prefix.into(), prefix_len: Some(length) }
    }

    #[test]
    fn the_closest_chain_is_chosen() {
        let chain = |name: &str, matched: FilterChainMatch| FilterChain {
            name: name.into(),
            filter_chain_match: Some(matched),
            ..FilterChain::default()
        };
        let listener = Listener {
            filter_chains: vec![
                chain(
                    "tls",
                    FilterChainMatch {
                        transport_protocol: "tls".into(),
                        ..FilterChainMatch::default()
                    },
                ),
                chain(
                    "port",
                    FilterChainMatch { destination_port: Some(80), ..FilterChainMatch::default() },
                ),
                chain(
                    "range",
                    FilterChainMatch {
                        prefix_ranges: vec![range("10.0.0.0", 8), range("10.1.0.0", 16)],
                        ..FilterChainMatch::default()
                    },
                ),
                chain(
                    "named",
                    FilterChainMatch {
                        server_names: vec!["*.shop".into()],
                        ..FilterChainMatch::default()
                    },
                ),
            ],
            ..Listener::default()
        };
        let of = |address: &str, port, server_name, transport| {
            let address = address.parse().ok();
            let connection = Connection { address, port, server_name, transport, protocols: &[] };
            super::chain(&listener, &connection).map(|it| it.name.as_str())
        };
        assert_eq!(of("10.1.2.3", 80, None, "tls"), Some("port"));
        assert_eq!(of("10.1.2.3", 81, None, "tls"), Some("range"));
        assert_eq!(of("11.1.2.3", 81, Some("a.shop"), "tls"), Some("named"));
        assert_eq!(of("", 81, None, "tls"), Some("tls"));
        assert_eq!(of("", 81, None, "raw_buffer"), None);
    }

    #[test]
    fn ranges_hold_addresses_of_their_family() {
        let within = |prefix, length, address: &str| {
            length_if_within(&range(prefix, length), address.parse().unwrap())
        };
        assert_eq!(within("10.0.0.0", 8, "10.9.9.9"), Some(8));
        assert_eq!(within("10.0.0.0", 8, "11.0.0.0"), None);
        assert_eq!(within("0.0.0.0", 0, "1.2.3.4"), Some(0));
        assert_eq!(within("10.0.0.1", 32, "10.0.0.1"), Some(32));
        assert_eq!(within("fd00::", 8, "fd01::1"), Some(8));
        assert_eq!(within("0.0.0.0", 0, "fd01::1"), None);
    }
}
