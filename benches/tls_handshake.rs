//! What does a TLS handshake cost: full and resumed, with and without client certificate, both sides together?

#![expect(clippy::expect_used, reason = "a bench stops at the first surprise")]

use certs::{Authority, Leaf, Request};
use criterion::{Criterion, criterion_group, criterion_main};
use proxy::config::matcher::{StringMatcher, StringPattern};
use proxy::config::tls::{
    CommonTls, DataSource, DownstreamTls, SanKind, SanMatcher, SecretRef, TlsCertificate,
    TlsVersion, UpstreamTls, ValidationContext, ValidationSource,
};
use proxy::tls::client::ClientTls;
use proxy::tls::secrets::Secrets;
use proxy::tls::server::ServerTls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn context(authority: &Authority, own: Option<&Leaf>) -> CommonTls {
    let inline = |pem: &str| DataSource::Inline(pem.as_bytes().to_vec());
    let certificate =
        |leaf: &Leaf| TlsCertificate { chain: inline(&leaf.chain_pem), key: inline(&leaf.key_pem) };
    let pattern = StringPattern::Prefix("spiffe://cluster.local/".into());
    let matcher = StringMatcher::new(pattern, false);
    let validation = ValidationContext {
        trusted_ca: Some(inline(authority.root_pem())),
        san: vec![SanMatcher { kind: SanKind::Uri, matcher }],
        ..ValidationContext::default()
    };
    CommonTls {
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: Vec::new(),
        certificates: own.map(certificate).map(SecretRef::Inline).into_iter().collect(),
        validation: Some(ValidationSource::Single(SecretRef::Inline(validation))),
        key_log: None,
    }
}

/// A server and a client that trust each other.
fn sides(client_certificate: bool, resume: bool) -> (ServerTls, ClientTls) {
    let authority = Authority::self_signed("bench").expect("a root");
    let leaf = authority.issue(&Request::default().uri(IDENTITY)).expect("a certificate");
    let server = DownstreamTls {
        common: context(&authority, Some(&leaf)),
        require_client_certificate: client_certificate,
        disable_tickets: !resume,
        session_timeout: None,
    };
    let client = UpstreamTls {
        common: context(&authority, client_certificate.then_some(&leaf)),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
    };
    let secrets = Secrets::default();
    let server = ServerTls::build(&server, &secrets).expect("a server context");
    (server, ClientTls::build(&client, &secrets).expect("a client context"))
}

/// One connection with one byte from server to client, which brings the session tickets along.
async fn connect(server: &ServerTls, client: &ClientTls) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let (mut stream, _) = server.accept(far).await.expect("a good client");
        stream.write_all(b"x").await.expect("an open connection");
        stream
    };
    let ask = async {
        let (mut stream, _) =
            client.connect(near, Some("cart.shop"), None, &[]).await.expect("a good server");
        stream.read_exact(&mut [0]).await.expect("an open connection");
        stream
    };
    tokio::join!(serve, ask);
}

fn handshakes(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("tls_handshake");
    for (name, client_certificate, resume) in [
        ("server certificate only", false, false),
        ("mutual", true, false),
        ("mutual, resumed", true, true),
    ] {
        let (server, client) = sides(client_certificate, resume);
        // The first connection of a resuming client is a full one.
        runtime.block_on(connect(&server, &client));
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(connect(&server, &client)));
        });
    }
    group.finish();
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
