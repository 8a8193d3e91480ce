//! Handshakes in memory: our server with our client, one side configured oddly at a time.

mod client_certificates;
mod parameters;
mod server_certificates;
mod version_1;

use std::time::{Duration, SystemTime};

use certs::{Authority, Leaf, Request, Validity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::client::{ClientTls, ConnectError};
use super::peer::PeerInfo;
use super::secrets::Secrets;
use super::server::ServerTls;
use crate::config::Invalid;
use crate::config::matcher::{StringMatcher, StringPattern};
use crate::config::tls::*;

const OURS: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn inline(pem: &str) -> DataSource {
    DataSource::Inline(pem.as_bytes().to_vec())
}

fn certificate(leaf: &Leaf) -> SecretRef<TlsCertificate> {
    let (chain, key) = (inline(&leaf.chain_pem), inline(&leaf.key_pem));
    SecretRef::Inline(TlsCertificate { chain, key })
}

fn validation(context: ValidationContext) -> Option<ValidationSource> {
    Some(ValidationSource::Single(SecretRef::Inline(context)))
}

fn trusting(authority: &Authority) -> ValidationContext {
    let trusted_ca = Some(inline(authority.root_pem()));
    ValidationContext { trusted_ca, ..ValidationContext::default() }
}

fn san(kind: SanKind, pattern: StringPattern) -> SanMatcher {
    SanMatcher { kind, matcher: StringMatcher::new(pattern, false) }
}

fn uri(exact: &str) -> SanMatcher {
    san(SanKind::Uri, StringPattern::Exact(exact.into()))
}

fn common(leaves: &[&Leaf], validation: Option<ValidationSource>) -> CommonTls {
    CommonTls {
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: Vec::new(),
        certificates: leaves.iter().map(|leaf| certificate(leaf)).collect(),
        validation,
        key_log: None,
    }
}

fn downstream(leaves: &[&Leaf], validation: Option<ValidationSource>) -> DownstreamTls {
    DownstreamTls {
        common: common(leaves, validation),
        require_client_certificate: false,
        disable_tickets: false,
        session_timeout: None,
    }
}

fn upstream(leaves: &[&Leaf], validation: Option<ValidationSource>) -> UpstreamTls {
    UpstreamTls {
        common: common(leaves, validation),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
    }
}

fn server(context: &DownstreamTls) -> Result<ServerTls, Invalid> {
    ServerTls::build(context, &Secrets::default())
}

fn client(context: &UpstreamTls) -> Result<ClientTls, Invalid> {
    ClientTls::build(context, &Secrets::default())
}

/// A validity that is over.
fn past() -> Validity {
    let hour = Duration::from_secs(3600);
    Validity::from(SystemTime::now() - 2 * hour, hour)
}

/// A validity that has not begun.
fn future() -> Validity {
    let hour = Duration::from_secs(3600);
    Validity::from(SystemTime::now() + 2 * hour, hour)
}

/// How a connection attempt went, seen from both sides.
#[derive(Debug)]
struct Outcome {
    /// What the server learned, or why it refused.
    server: Result<PeerInfo, String>,
    /// What the client learned, or why it refused.
    client: Result<PeerInfo, ConnectError>,
    /// Whether a byte could be exchanged each way.
    works: bool,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Ask<'a> {
    name: Option<&'a str>,
    certified: Option<&'a str>,
    alpn: &'a [&'a str],
}

async fn connect(server: &ServerTls, client: &ClientTls, ask: Ask<'_>) -> Outcome {
    let (near, far): (DuplexStream, DuplexStream) = duplex(64 * 1024);
    let serve = async {
        let (mut stream, peer) = server.accept(far).await.map_err(|error| error.to_string())?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
        stream.write_all(&byte).await.map_err(|error| error.to_string())?;
        Ok((peer, stream))
    };
    let ask = async {
        let (mut stream, peer) = client.connect(near, ask.name, ask.certified, ask.alpn).await?;
        let mut byte = [7];
        let _ = stream.write_all(&byte).await;
        // A refusal of the client's certificate only shows on the first read under TLS 1.3.
        let works = stream.read_exact(&mut byte).await.is_ok() && byte == [7];
        Ok((peer, works))
    };
    let (served, asked) = tokio::join!(serve, ask);
    let works = matches!(asked, Ok((_, true)));
    Outcome { server: served.map(|(peer, _)| peer), client: asked.map(|(peer, _)| peer), works }
}

impl Outcome {
    fn server_error(&self) -> &str {
        self.server.as_ref().err().map_or("", String::as_str)
    }

    fn client_error(&self) -> String {
        self.client.as_ref().err().map(ToString::to_string).unwrap_or_default()
    }
}

/// A root, a server certificate for `localhost`, and a client certificate for [`OURS`].
fn mesh() -> (Authority, Leaf, Leaf) {
    let authority = Authority::self_signed("root").unwrap();
    let server = authority.issue(&Request::default().uri(OURS).dns("localhost")).unwrap();
    let client = authority.issue(&Request::default().uri(OURS)).unwrap();
    (authority, server, client)
}
