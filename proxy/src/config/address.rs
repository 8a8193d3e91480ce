//! Addresses and address ranges (Envoy `core.v3.Address`, `core.v3.CidrRange`).

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use super::Name;

/// Where an upstream endpoint is (Envoy `core.v3.Address`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address that can be connected to as it is.
    Literal(HostAddress),
    /// A DNS name and a port, for STRICT_DNS clusters only.
    Dns {
        /// The name to look up.
        host: Name,
        /// The port to dial on each address found.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(address) => address.fmt(f),
            Self::Dns { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Literal(address.into())
    }
}

/// An address that can be connected to. Prints as Envoy prints it: `127.0.0.1:80`, `/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostAddress {
    /// IP address and port.
    Ip(SocketAddr),
    /// A Unix socket (Envoy `core.v3.Pipe.path`): a path, or a name in the abstract namespace after `@`.
    Pipe(Name),
}

impl HostAddress {
    /// The address that prints as `text`.
    pub fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(address) if Self::Ip(address).to_string() == text => Self::Ip(address),
            _ => Self::Pipe(text.into()),
        }
    }

    /// IP address and port; none for a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }
}

impl HostAddress {
    /// Whether it is to be listened on, on a port that the system chooses.
    pub fn asks_for_any_port(&self) -> bool {
        matches!(self, Self::Ip(address) if address.port() == 0)
    }
}

impl From<SocketAddr> for HostAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(SocketAddr::V4(address)) if f.width().is_none() => {
                f.write_str(&dotted(*address))
            }
            Self::Ip(address) => address.fmt(f),
            Self::Pipe(path) => path.fmt(f),
        }
    }
}

/// What a version 4 address prints as. Logs and cookies are full of them, and the standard library takes its time.
fn dotted(address: SocketAddrV4) -> String {
    let mut text = String::with_capacity("255.255.255.255:65535".len());
    let mut digits = itoa::Buffer::new();
    for (octet, mark) in address.ip().octets().into_iter().zip(['.', '.', '.', ':']) {
        text.push_str(digits.format(octet));
        text.push(mark);
    }
    text.push_str(digits.format(address.port()));
    text
}

/// An address block (Envoy `core.v3.CidrRange`, RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CidrRange {
    prefix: IpAddr,
    length: u8,
}

impl CidrRange {
    /// The block of all addresses that share `length` leading bits with `prefix`; none if `length` is
    /// over 32 (IPv4) or 128 (IPv6).
    pub fn new(prefix: IpAddr, length: u8) -> Option<Self> {
        let limit = if prefix.is_ipv4() { 32 } else { 128 };
        (length <= limit).then(|| Self { prefix: mask(prefix, length), length })
    }

    /// Whether `address` lies in the block. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.prefix.is_ipv4() && mask(address, self.length) == self.prefix
    }

    /// Number of leading bits that count: longer is more specific.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The block's first address.
    pub fn prefix(&self) -> IpAddr {
        self.prefix
    }
}

impl fmt::Display for CidrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.length)
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_by_how_it_prints() {
        for text in ["127.0.0.1:80", "[::1]:443", "/run/app.sock"] {
            assert_eq!(HostAddress::parse(text).to_string(), text);
        }
        assert_eq!(HostAddress::parse("127.0.0.1:80").ip(), "127.0.0.1:80".parse().ok());
        assert_eq!(HostAddress::parse("127.0.0.1:080").ip(), None);
    }

    #[test]
    fn a_block_holds_its_addresses_and_no_others() {
        let block = CidrRange::new("10.1.2.3".parse().unwrap(), 8).unwrap();
        assert!(block.contains("10.255.0.1".parse().unwrap()));
        assert!(block.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!block.contains("11.0.0.1".parse().unwrap()));
        assert!(!block.contains("::1".parse().unwrap()));
        assert_eq!(block.to_string(), "10.0.0.0/8");
        let all = CidrRange::new("::".parse().unwrap(), 0).unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
        assert!(CidrRange::new("1.2.3.4".parse().unwrap(), 33).is_none());
    }
}
