//! Whether a connection begins with TLS, and which server name and protocols are asked for (Envoy `tls_inspector`).

/// Longest ClientHello that is waited for, in bytes.
const MAX_HELLO: usize = 64 * 1024;
/// The most that is looked at: a longest ClientHello, and room for the headers of its records.
pub(super) const MAX_LOOK: usize = 2 * MAX_HELLO;

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inspection {
    /// Not TLS, or nothing that could be understood.
    Raw,
    /// A TLS ClientHello.
    Tls(ClientHello),
    /// A ClientHello longer than 64 KiB: refuse the connection.
    TooLarge,
}

/// What a ClientHello asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// The server name, in lower case.
    pub(super) server_name: Option<Box<str>>,
    /// The application protocols, in the client's order.
    pub(super) alpn: Vec<Box<[u8]>>,
}

/// What `bytes`, the beginning of a connection, say; none if more are needed.
///
/// The answer never changes when more bytes follow.
pub(super) fn parse(bytes: &[u8]) -> Option<Inspection> {
    let mut hello = Vec::new();
    let mut rest = bytes;
    loop {
        let fragment = match record(rest) {
            Record::Incomplete(fragment) => {
                hello.extend_from_slice(fragment);
                return handshake(&hello);
            }
            Record::Complete(fragment, after) => {
                rest = after;
                fragment
            }
            Record::Other => return Some(Inspection::Raw),
        };
        hello.extend_from_slice(fragment);
        if let Some(result) = handshake(&hello) {
            return Some(result);
        }
    }
}

/// The first TLS record of some bytes.
enum Record<'a> {
    /// Its content, and what follows it.
    Complete(&'a [u8], &'a [u8]),
    /// What there is of its content.
    Incomplete(&'a [u8]),
    /// No handshake record.
    Other,
}

fn record(bytes: &[u8]) -> Record<'_> {
    const HANDSHAKE: u8 = 22;
    const MAX_CONTENT: usize = 1 << 14;
    match bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => {
            Record::Incomplete(&[])
        }
        [HANDSHAKE, 3, _, high, low, content @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length == 0 || length > MAX_CONTENT {
                return Record::Other;
            }
            match content.split_at_checked(length) {
                Some((content, after)) => Record::Complete(content, after),
                None => Record::Incomplete(content),
            }
        }
        _ => Record::Other,
    }
}

/// What a handshake message says, of which `bytes` are the beginning; none if more are needed.
fn handshake(bytes: &[u8]) -> Option<Inspection> {
    const CLIENT_HELLO: u8 = 1;
    let (kind, rest) = bytes.split_first()?;
    if *kind != CLIENT_HELLO {
        return Some(Inspection::Raw);
    }
    let (length, body) = rest.split_first_chunk::<3>()?;
    let [high, middle, low] = length.map(usize::from);
    let length = high << 16 | middle << 8 | low;
    if length > MAX_HELLO {
        return Some(Inspection::TooLarge);
    }
    let body = body.get(..length)?;
    Some(client_hello(Reader(body)).map_or(Inspection::Raw, Inspection::Tls))
}

/// None if the message is malformed.
fn client_hello(mut reader: Reader<'_>) -> Option<ClientHello> {
    const SERVER_NAME: u16 = 0;
    const ALPN: u16 = 16;
    let _version_and_random = reader.take(2 + 32)?;
    let _session = reader.vector8()?;
    let _cipher_suites = reader.vector16()?;
    let _compression = reader.vector8()?;
    let mut hello = ClientHello::default();
    if reader.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.vector16()?);
    while !extensions.is_empty() {
        let kind = extensions.number()?;
        let content = Reader(extensions.vector16()?);
        match kind {
            SERVER_NAME => hello.server_name = server_name(content)?,
            ALPN => hello.alpn = protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(mut reader: Reader<'_>) -> Option<Option<Box<str>>> {
    const HOST_NAME: u8 = 0;
    let mut names = Reader(reader.vector16()?);
    while !names.is_empty() {
        let kind = names.take(1)?;
        let name = names.vector16()?;
        if kind == [HOST_NAME] {
            let name = std::str::from_utf8(name).ok()?;
            return Some(Some(name.to_ascii_lowercase().into()));
        }
    }
    Some(None)
}

fn protocols(mut reader: Reader<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut list = Reader(reader.vector16()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(list.vector8()?.into());
    }
    Some(protocols)
}

/// Takes bytes from the front; none when there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    /// Bytes behind a length of one byte.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take(usize::from(*length))
    }

    /// Bytes behind a length of two bytes.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// A real ClientHello.
    fn hello(name: &'static str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|text| text.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same handshake message in records of at most `size` bytes.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[5..].chunks(size).map(|chunk| {
            let length = u16::try_from(chunk.len()).unwrap().to_be_bytes();
            [&[22, 3, 1], &length[..], chunk].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    fn asked(name: &str, alpn: &[&str]) -> Inspection {
        Inspection::Tls(ClientHello {
            server_name: Some(name.into()),
            alpn: alpn.iter().map(|text| text.as_bytes().into()).collect(),
        })
    }

    #[test]
    fn a_client_hello_tells_name_and_protocols() {
        let bytes = hello("Reviews.Shop.svc", &["h2", "http/1.1"]);
        assert_eq!(parse(&bytes), Some(asked("reviews.shop.svc", &["h2", "http/1.1"])));
        let bytes = hello("127.0.0.1", &[]);
        assert_eq!(parse(&bytes), Some(Inspection::Tls(ClientHello::default())));
    }

    #[test]
    fn every_prefix_asks_for_more_and_any_fragmentation_tells_the_same() {
        let whole = hello("a.example", &["h2"]);
        for size in [1, 7, 100, 16_384] {
            let bytes = fragmented(&whole, size);
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), None, "{end} of {} by {size}", bytes.len());
            }
            assert_eq!(parse(&bytes), Some(asked("a.example", &["h2"])));
        }
    }

    #[test]
    fn other_protocols_are_raw_from_their_first_byte_that_differs() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0",
            b"\x15\x03\x01\x00\x02",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x05\x02",
        ] {
            assert_eq!(parse(bytes), Some(Inspection::Raw), "{bytes:?}");
            let shorter = parse(&bytes[..bytes.len() - 1]);
            assert!(matches!(shorter, None | Some(Inspection::Raw)));
        }
    }

    #[test]
    fn a_hello_beyond_the_limit_is_not_waited_for() {
        let bytes = b"\x16\x03\x01\x40\x00\x01\x01\x00\x01";
        assert_eq!(parse(bytes), Some(Inspection::TooLarge));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_the_answer(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            as_tls: bool,
            cut in 0..300_usize,
        ) {
            if as_tls {
                bytes.splice(..0, *b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc");
            }
            let cut = cut.min(bytes.len());
            if let Some(early) = parse(&bytes[..cut]) {
                prop_assert_eq!(parse(&bytes), Some(early));
            }
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0..200_usize, value: u8) {
            let mut bytes = hello("a.example", &["h2"]);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = parse(&bytes);
        }
    }
}
