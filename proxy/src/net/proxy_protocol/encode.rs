//! Writes the PROXY protocol's header.

use std::net::{IpAddr, SocketAddr};

use super::{Tlv, V2_SIGNATURE, Version};

/// The header that says a connection comes from `source` and was made to `destination`; none of them for one
/// that the proxy makes for itself, of which version 1 can only say that nothing is known. `tlvs` are sent
/// with addresses in version 2; those that make it longer than a header can be are left out.
pub fn encode(
    version: Version,
    addresses: Option<(SocketAddr, SocketAddr)>,
    tlvs: &[Tlv],
) -> Vec<u8> {
    let addresses = addresses.map(|(source, destination)| same_family(source, destination));
    match (version, addresses) {
        (Version::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (Version::V1, Some((source, destination))) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        (Version::V2, None) => [V2_SIGNATURE, &[0x20, 0, 0, 0]].concat(),
        (Version::V2, Some((source, destination))) => version_2(source, destination, tlvs),
    }
}

fn version_2(source: SocketAddr, destination: SocketAddr, tlvs: &[Tlv]) -> Vec<u8> {
    let mut content = Vec::new();
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => content.extend(ip.octets()),
            IpAddr::V6(ip) => content.extend(ip.octets()),
        }
    }
    content.extend(source.port().to_be_bytes());
    content.extend(destination.port().to_be_bytes());
    for Tlv { kind, value } in tlvs {
        let fits = content.len() + 3 + value.len() <= usize::from(u16::MAX);
        if let Some(length) = u16::try_from(value.len()).ok().filter(|_| fits) {
            content.push(*kind);
            content.extend(length.to_be_bytes());
            content.extend(value);
        }
    }
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    [V2_SIGNATURE, &[0x21, family], &length, &content].concat()
}

/// Both as IPv6 if one of them is.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(source), mapped(destination))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::super::{Beginning, parse};
    use super::*;

    fn v4(ip: u32, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(ip.into()), port)
    }

    fn v6(ip: u128, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(ip.into()), port)
    }

    /// What a reader makes of a header.
    fn read(bytes: &[u8]) -> super::super::Header {
        match parse(bytes) {
            Some(Beginning::Header(header)) if header.length == bytes.len() => header,
            other => panic!("{other:?} of {bytes:?}"),
        }
    }

    #[test]
    fn version_1_is_a_line() {
        let header = encode(Version::V1, Some((v4(0x7f00_0001, 7), v4(0x7f00_0002, 80))), &[]);
        assert_eq!(header, b"PROXY TCP4 127.0.0.1 127.0.0.2 7 80\r\n");
        let mixed = encode(Version::V1, Some((v6(1, 7), v4(0x7f00_0002, 80))), &[]);
        assert_eq!(mixed, b"PROXY TCP6 ::1 ::ffff:127.0.0.2 7 80\r\n");
    }

    #[test]
    fn of_our_own_connections_nothing_is_said() {
        for version in [Version::V1, Version::V2] {
            assert_eq!(read(&encode(version, None, &[])).addresses, None);
        }
    }

    #[test]
    fn extensions_that_do_not_fit_are_left_out() {
        let long = Tlv { kind: 1, value: vec![0; 65_000].into() };
        let short = Tlv { kind: 2, value: (*b"x").into() };
        let addresses = Some((v4(1, 2), v4(3, 4)));
        let tlvs = [long.clone(), long.clone(), short.clone()];
        assert_eq!(read(&encode(Version::V2, addresses, &tlvs)).tlvs, [long, short]);
    }

    /// Above zero and below multicast: what a connection can be between.
    const HOSTS_V4: Range<u32> = 1..0xE000_0000;
    const HOSTS_V6: Range<u128> = 1..0xFF << 120;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            from in (HOSTS_V4, any::<u16>()),
            to in (HOSTS_V4, any::<u16>()),
            six in (HOSTS_V6, any::<u16>()),
            value: Vec<u8>,
        ) {
            let (a, b, c) = (v4(from.0, from.1), v4(to.0, to.1), v6(six.0, six.1));
            let tlvs = [Tlv { kind: 0xE0, value: value.into() }];
            for (source, destination) in [(a, b), (c, c)] {
                let addresses = Some((source, destination));
                prop_assert_eq!(read(&encode(Version::V1, addresses, &[])).addresses, addresses);
                let header = read(&encode(Version::V2, addresses, &tlvs));
                prop_assert_eq!(header.addresses, addresses);
                prop_assert_eq!(header.tlvs.as_slice(), tlvs.as_slice());
            }
        }
    }
}
