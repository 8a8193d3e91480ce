//! The PROXY protocol's header, both versions: who is behind a connection, as the proxy in front tells it.
//!
//! Strict where the specification is, and where it leaves a choice, as Envoy.

mod encode;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use encode::encode;

/// What version 1 begins with.
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// What version 2 begins with.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, its end included, as Envoy counts.
const V1_LONGEST: usize = 108;
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// The longest header there can be, in bytes.
pub const LONGEST: usize = V2_FIXED + u16::MAX as usize;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What the beginning of a connection says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// There is no PROXY header.
    Absent,
    /// A header that is not as it must be.
    Malformed(Version),
    /// A header.
    Header(Header),
}

/// A header as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How it was written.
    pub version: Version,
    /// Its length in bytes: the connection's own bytes follow.
    pub length: usize,
    /// Source and destination; none where the sender speaks for itself (LOCAL) or cannot say (UNKNOWN).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Extensions of version 2, in order.
    pub tlvs: Vec<Tlv>,
}

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// Its type.
    pub kind: u8,
    /// Its value.
    pub value: Box<[u8]>,
}

impl Version {
    /// Whether `bytes` begin a header of this version, as far as they go.
    pub fn may_begin(self, bytes: &[u8]) -> bool {
        let signature = match self {
            Self::V1 => V1_SIGNATURE,
            Self::V2 => V2_SIGNATURE,
        };
        bytes.iter().zip(signature).all(|(a, b)| a == b)
    }
}

/// What `bytes`, the beginning of a connection, say; none if more are needed.
///
/// The answer never changes when more bytes follow.
pub fn parse(bytes: &[u8]) -> Option<Beginning> {
    if Version::V1.may_begin(bytes) {
        (bytes.len() >= V1_SIGNATURE.len()).then(|| version_1(bytes))?
    } else if Version::V2.may_begin(bytes) {
        version_2(bytes)
    } else {
        Some(Beginning::Absent)
    }
}

fn version_1(bytes: &[u8]) -> Option<Beginning> {
    let Some(end) = bytes.windows(2).take(V1_LONGEST - 1).position(|pair| pair == b"\r\n") else {
        return (bytes.len() >= V1_LONGEST).then_some(Beginning::Malformed(Version::V1));
    };
    let line = std::str::from_utf8(bytes.get(..end)?).ok();
    Some(match line.and_then(addresses_of_line) {
        Some(addresses) => Beginning::Header(Header {
            version: Version::V1,
            length: end + 2,
            addresses,
            tlvs: Vec::new(),
        }),
        None => Beginning::Malformed(Version::V1),
    })
}

/// The inner none is UNKNOWN; the outer one, nothing that can be understood.
fn addresses_of_line(line: &str) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut ip = || match family {
        "TCP4" => words.next()?.parse().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, destination) = (ip()?, ip()?);
    let mut port = || {
        let word = words.next()?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| word.parse().ok())?
    };
    let addresses =
        between(SocketAddr::new(source, port()?), SocketAddr::new(destination, port()?));
    if words.next().is_some() { None } else { addresses.map(Some) }
}

fn version_2(bytes: &[u8]) -> Option<Beginning> {
    const MALFORMED: Option<Beginning> = Some(Beginning::Malformed(Version::V2));
    let (fixed, rest) = bytes.split_at_checked(V2_FIXED)?;
    let [.., command, family, high, low] = fixed else { return MALFORMED };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let header = |addresses, tlvs| {
        let length = V2_FIXED + length;
        Some(Beginning::Header(Header { version: Version::V2, length, addresses, tlvs }))
    };
    match (*command, *family) {
        // LOCAL: whatever else it holds is to be skipped.
        (0x20, _) => {
            rest.get(..length)?;
            header(None, Vec::new())
        }
        // PROXY, over TCP or UDP.
        (0x21, family @ (0x11 | 0x12 | 0x21 | 0x22)) => {
            if length < if family < 0x20 { 12 } else { 36 } {
                return MALFORMED;
            }
            match addresses_and_tlvs(family, rest.get(..length)?) {
                Some((addresses, tlvs)) => header(Some(addresses), tlvs),
                None => MALFORMED,
            }
        }
        _ => MALFORMED,
    }
}

fn addresses_and_tlvs(family: u8, body: &[u8]) -> Option<((SocketAddr, SocketAddr), Vec<Tlv>)> {
    let (source, destination, rest) = if family < 0x20 {
        let (source, rest) = body.split_first_chunk::<4>()?;
        let (destination, rest) = rest.split_first_chunk::<4>()?;
        (Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), rest)
    } else {
        let (source, rest) = body.split_first_chunk::<16>()?;
        let (destination, rest) = rest.split_first_chunk::<16>()?;
        (Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest)
    };
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, rest) = rest.split_first_chunk()?;
    let source = SocketAddr::new(source, u16::from_be_bytes(*source_port));
    let destination = SocketAddr::new(destination, u16::from_be_bytes(*destination_port));
    Some((between(source, destination)?, tlvs(rest)?))
}

fn tlvs(mut bytes: &[u8]) -> Option<Vec<Tlv>> {
    let mut tlvs = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        tlvs.push(Tlv { kind: *kind, value: value.into() });
        bytes = rest;
    }
    Some(tlvs)
}

/// Both, if a connection can be between them.
fn between(source: SocketAddr, destination: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
    let is_host = |address: IpAddr| match address {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    (is_host(source.ip()) && is_host(destination.ip())).then_some((source, destination))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(bytes: &[u8]) -> Header {
        match parse(bytes) {
            Some(Beginning::Header(header)) => header,
            other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn addresses(source: &str, destination: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    /// A header of version 2 with this command, family and body.
    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, body].concat()
    }

    const IPV4: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0, 11, 0, 22];

    #[test]
    fn a_line_of_text_names_both_ends() {
        let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 11 022\r\nGET";
        let found = header(line);
        assert_eq!((found.version, found.length), (Version::V1, line.len() - 3));
        assert_eq!(found.addresses, addresses("1.2.3.4:11", "5.6.7.8:22"));
        let found = header(b"PROXY TCP6 1::2 ::ffff:1.2.3.4 0 65535\r\n");
        assert_eq!(found.addresses, addresses("[1::2]:0", "[::ffff:1.2.3.4]:65535"));
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN what ever\r\n"] {
            let found = header(line);
            assert_eq!((found.addresses, found.length), (None, line.len()));
        }
    }

    #[test]
    fn a_line_that_is_not_as_it_must_be_is_malformed() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_LONGEST));
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 11\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 11 22 33\r\n",
            "PROXY  TCP4 1.2.3.4 5.6.7.8 11 22\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 11 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +11 22\r\n",
            "PROXY TCP4 ::1 ::2 11 22\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 11 22\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 11 22\r\n",
            "PROXY TCP4 224.0.0.1 5.6.7.8 11 22\r\n",
            "PROXY TCP4 0.0.0.0 5.6.7.8 11 22\r\n",
            "PROXY TCP4 1.2.3.4 255.255.255.255 11 22\r\n",
            "PROXY TCP6 ff02::1 ::2 11 22\r\n",
            &long,
        ] {
            assert_eq!(parse(line.as_bytes()), Some(Beginning::Malformed(Version::V1)), "{line}");
        }
    }

    #[test]
    fn a_binary_header_names_both_ends_and_has_extensions() {
        let extended = [IPV4, b"\x01\x00\x02h2\xee\x00\x00"].concat();
        let found = header(&[binary(0x21, 0x11, &extended), b"GET".to_vec()].concat());
        assert_eq!((found.version, found.length), (Version::V2, 16 + extended.len()));
        assert_eq!(found.addresses, addresses("1.2.3.4:11", "5.6.7.8:22"));
        let tlv = |kind, value: &[u8]| Tlv { kind, value: value.into() };
        assert_eq!(found.tlvs, [tlv(1, b"h2"), tlv(0xee, b"")]);
        let ends = [[0; 15].as_slice(), &[1], &[0; 15], &[2], &[0, 7, 0, 8]].concat();
        for family in [0x21, 0x22] {
            let found = header(&binary(0x21, family, &ends));
            assert_eq!(found.addresses, addresses("[::1]:7", "[::2]:8"));
        }
        let local = header(&binary(0x20, 0, b"\x01\x00\x09cut"));
        assert_eq!((local.addresses, local.tlvs, local.length), (None, Vec::new(), 22));
    }

    #[test]
    fn a_binary_header_that_is_not_as_it_must_be_is_malformed() {
        for (command, family, body) in [
            (0x11, 0x11, IPV4),
            (0x22, 0x11, IPV4),
            (0x21, 0x10, IPV4),
            (0x21, 0x00, IPV4),
            (0x21, 0x31, &[0; 216]),
            (0x21, 0x11, &IPV4[..11]),
            (0x21, 0x21, &[1; 35]),
            (0x21, 0x11, &[0; 12]),
            (0x21, 0x11, &[IPV4, b"\x01\x00"].concat()),
            (0x21, 0x11, &[IPV4, b"\x01\x00\x04abc"].concat()),
        ] {
            let bytes = binary(command, family, body);
            assert_eq!(parse(&bytes), Some(Beginning::Malformed(Version::V2)), "{bytes:x?}");
        }
    }

    #[test]
    fn anything_else_has_no_header() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXYX", b"PROXY\r\n", b"\r\n\r\n\0\r\nQUIET"] {
            assert_eq!(parse(bytes), Some(Beginning::Absent));
        }
        for bytes in [&b""[..], b"PR", b"PROXY ", b"PROXY TCP4 1.2.3.4", V2_SIGNATURE] {
            assert_eq!(parse(bytes), None);
        }
    }

    /// Bytes that are often a header, or nearly one.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let any_bytes = || proptest::collection::vec(any::<u8>(), 0..80);
        prop_oneof![
            any_bytes(),
            (prop_oneof![Just(0x20_u8), Just(0x21), any::<u8>()], 0x10..0x23_u8, any_bytes())
                .prop_map(|(command, family, body)| binary(command, family, &body)),
            "PROXY (TCP4|TCP6|UNKNOWN) [0-9a-f:.]{1,9} [0-9.]{7,9} [0-9]{1,6} [0-9]{1,5}\r\n"
                .prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_the_answer(bytes in likely(), more in likely(), cut: usize) {
            let cut = cut % (bytes.len() + 1);
            let all = [bytes.clone(), more].concat();
            if let Some(early) = parse(&bytes[..cut]) {
                prop_assert_eq!(parse(&all), Some(early));
            }
        }

        #[test]
        fn a_header_is_never_longer_than_what_was_seen(bytes in likely()) {
            if let Some(Beginning::Header(header)) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len());
                prop_assert_eq!(parse(&bytes[..header.length - 1]), None);
            }
        }
    }
}
