//! Addresses and address ranges.

use std::net::{IpAddr, SocketAddr};

use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use xds::envoy::config::core::v3::{Address, CidrRange, Pipe, SocketAddress};

use super::errors::{At, Result, refuse, required};
use super::value::{enumeration, non_empty};
use crate::config;
use crate::config::address::HostAddress;

/// What the kernel takes as the path of a Unix socket, in bytes.
const LONGEST_PATH: usize = 107;

/// A socket address as written: a literal IP address or a name, with a port.
pub(super) struct HostPort<'a> {
    /// IP address or DNS name.
    pub(super) host: &'a str,
    /// The port, which may be 0.
    pub(super) port: u16,
    /// Whether an IPv6 wildcard also takes IPv4: nothing to an address that is not listened on.
    pub(super) ipv4_compat: bool,
}

/// A TCP address of either kind.
pub(super) fn host_port(proto: &Address) -> Result<HostPort<'_>> {
    let Address { address } = proto;
    match required("", address)? {
        AddressKind::SocketAddress(socket) => socket_address(socket).at("socket_address"),
        AddressKind::Pipe(_) => refuse("pipe", "a Unix socket is not supported here"),
    }
}

/// The address of an endpoint.
pub(super) fn upstream(proto: &Address) -> Result<config::address::Address> {
    let Address { address } = proto;
    if let AddressKind::Pipe(proto) = required("", address)? {
        return Ok(config::address::Address::Literal(pipe(proto).at("pipe")?));
    }
    let socket = host_port(proto)?;
    Ok(match socket.host.parse() {
        Ok(ip) => SocketAddr::new(ip, socket.port).into(),
        Err(_) => config::address::Address::Dns { host: socket.host.into(), port: socket.port },
    })
}

/// The path of a Unix socket.
fn pipe(proto: &Pipe) -> Result<HostAddress> {
    let Pipe { path, mode: _ } = proto;
    let path = non_empty("path", path)?;
    if path.len() > LONGEST_PATH {
        return refuse("path", format!("a Unix socket's path is at most {LONGEST_PATH} bytes"));
    }
    Ok(HostAddress::Pipe(path.into()))
}

/// A TCP address, or a name with a port.
pub(super) fn socket_address(proto: &SocketAddress) -> Result<HostPort<'_>> {
    let SocketAddress { protocol, address, ipv4_compat, port_specifier } = proto;
    if enumeration::<Protocol>("protocol", *protocol)? == Protocol::Udp {
        return refuse("protocol", "UDP is not supported by this version");
    }
    let host = non_empty("address", address)?;
    let PortSpecifier::PortValue(port) = required("port_value", port_specifier)?;
    let port = port_number("port_value", *port)?;
    Ok(HostPort { host, port, ipv4_compat: *ipv4_compat })
}

/// The port in `field`.
pub(super) fn port_number(field: &str, port: u32) -> Result<u16> {
    u16::try_from(port).map_err(|_| String::from("a port is at most 65535")).at(field)
}

/// An address to listen on.
pub(super) struct Listening {
    /// Where.
    pub(super) address: HostAddress,
    /// Whether it is to take IPv4 as well.
    pub(super) ipv4_compat: bool,
    /// The permissions of a Unix socket; 0 if they are not said.
    pub(super) mode: u32,
}

/// A literal address to listen on.
pub(super) fn listening(proto: &Address) -> Result<Listening> {
    let Address { address } = proto;
    if let AddressKind::Pipe(proto) = required("", address)? {
        let Pipe { path, mode } = proto;
        let address = pipe(proto).at("pipe")?;
        if *mode > 0o777 {
            return refuse("pipe.mode", "must be at most 511, which is 0777");
        }
        if *mode != 0 && path.starts_with('@') {
            return refuse("pipe.mode", "a name in the abstract namespace has no permissions");
        }
        return Ok(Listening { address, ipv4_compat: false, mode: *mode });
    }
    let HostPort { host, port, ipv4_compat } = host_port(proto)?;
    let address = ip(host, port).at("socket_address")?.into();
    Ok(Listening { address, ipv4_compat, mode: 0 })
}

/// A literal address to connect to.
pub(super) fn to_connect_to(proto: &Address) -> Result<SocketAddr> {
    let socket = host_port(proto)?;
    ip(socket.host, socket.port).at("socket_address")
}

/// A literal address and port, the latter 0 if it is for the system to choose.
pub(super) fn literal(proto: &SocketAddress) -> Result<SocketAddr> {
    let socket = socket_address(proto)?;
    ip(socket.host, socket.port)
}

fn ip(host: &str, port: u16) -> Result<SocketAddr> {
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => refuse("address", format!("{host:?} is no IP address")),
    }
}

/// An address block.
pub(super) fn cidr_range(proto: &CidrRange) -> Result<config::address::CidrRange> {
    let CidrRange { address_prefix, prefix_len } = proto;
    let prefix: IpAddr = address_prefix
        .parse()
        .map_err(|_| format!("{address_prefix:?} is no IP address"))
        .at("address_prefix")?;
    let longest = if prefix.is_ipv4() { 32 } else { 128 };
    u8::try_from(prefix_len.unwrap_or(0))
        .ok()
        .and_then(|length| config::address::CidrRange::new(prefix, length))
        .ok_or_else(|| format!("must be at most {longest}"))
        .at("prefix_len")
}
