//! Pools over TLS: what ALPN decides, whose name is sent, what a refusal looks like.

use std::cell::{Cell, RefCell};

use certs::Authority;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::config::tls::{
    CommonTls, DataSource, DownstreamTls, SecretRef, TlsCertificate, TlsVersion, UpstreamTls,
    ValidationContext, ValidationSource,
};
use crate::tls::secrets::Secrets;
use crate::tls::server::ServerTls;
use crate::upstream::http::LocalExecutor;

fn common(alpn: &[&str]) -> CommonTls {
    CommonTls {
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: alpn.iter().map(|protocol| (*protocol).into()).collect(),
        certificates: Vec::new(),
        validation: None,
        key_log: None,
    }
}

fn trusting(authority: &Authority) -> Option<ValidationSource> {
    let trusted_ca = Some(DataSource::Inline(authority.root_pem().as_bytes().to_vec()));
    let context = ValidationContext { trusted_ca, ..ValidationContext::default() };
    Some(ValidationSource::Single(SecretRef::Inline(context)))
}

/// A server that answers every request with `ok` over whatever ALPN chooses.
struct Server {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    names: Rc<RefCell<Vec<Option<String>>>>,
    authority: Authority,
}

impl Server {
    /// Offers `alpn`; wants a certificate from its clients if `mutual`.
    async fn start(alpn: &[&str], mutual: bool) -> Self {
        let authority = Authority::self_signed("test").unwrap();
        let leaf = authority.issue(&certs::Request::default().dns("shop.example")).unwrap();
        let inline = |pem: &str| DataSource::Inline(pem.as_bytes().to_vec());
        let mut common = common(alpn);
        let (chain, key) = (inline(&leaf.chain_pem), inline(&leaf.key_pem));
        common.certificates = vec![SecretRef::Inline(TlsCertificate { chain, key })];
        common.validation = mutual.then(|| trusting(&authority)).flatten();
        let context = DownstreamTls {
            common,
            require_client_certificate: mutual,
            disable_tickets: false,
            session_timeout: None,
        };
        let tls = Rc::new(ServerTls::build(&context, &Secrets::default()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, connections: Rc::default(), names: Rc::default(), authority };
        let (connections, names) = (server.connections.clone(), server.names.clone());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                let (tls, names) = (tls.clone(), names.clone());
                tokio::task::spawn_local(async move {
                    let Ok((stream, peer)) = tls.accept(stream).await else { return };
                    names.borrow_mut().push(peer.sni().map(str::to_owned));
                    serve(TokioIo::new(stream), peer.alpn() == Some(b"h2")).await;
                });
            }
        });
        server
    }

    fn fixture(&self, edit: impl FnOnce(&mut Cluster)) -> Fixture {
        self.trusted_by(&self.authority, edit)
    }

    fn trusted_by(&self, authority: &Authority, edit: impl FnOnce(&mut Cluster)) -> Fixture {
        let mut common = common(&[]);
        common.validation = trusting(authority);
        let config = Arc::new(UpstreamTls {
            common,
            sni: Some("configured.example".into()),
            auto_host_sni: false,
            auto_sni_san_validation: false,
        });
        let client = Arc::new(ClientTls::build(&config, &Secrets::default()).unwrap());
        Fixture::with_tls(self.address, Some(Tls { config, client }), edit)
    }
}

async fn serve<IO>(io: IO, http2: bool)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let service = service_fn(async |_| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, std::convert::Infallible>(Response::new(RequestBody::full(Bytes::from_static(
            b"ok",
        ))))
    });
    // The client may go away at any time.
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
        let _ = builder.serve_connection(io, service).await;
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(io, service).await;
    }
}

async fn at_once(fixture: &Fixture, count: usize) -> Vec<String> {
    futures_util::future::join_all((0..count).map(|_| fixture.get())).await
}

fn alpn(cluster: &mut Cluster) {
    cluster.http.protocol = UpstreamProtocol::Alpn;
}

#[test]
fn where_both_are_offered_http2_is_spoken() {
    on_worker(async {
        let server = Server::start(&["h2", "http/1.1"], false).await;
        let fixture = server.fixture(alpn);
        assert_eq!(at_once(&fixture, 10).await, ["ok"; 10]);
        assert_eq!(server.connections.get(), 1, "the first is waited for");
        assert_eq!(fixture.stats.upstream_cx_http2_total.get(), 1);
        assert_eq!(*server.names.borrow(), [Some("configured.example".to_owned())]);
        fixture.assert_nothing_held();
    });
}

#[test]
fn where_only_http1_is_offered_every_request_gets_its_connection() {
    on_worker(async {
        let server = Server::start(&["http/1.1"], false).await;
        let fixture = server.fixture(alpn);
        assert_eq!(at_once(&fixture, 3).await, ["ok"; 3]);
        assert_eq!(server.connections.get(), 3);
        assert_eq!(fixture.stats.upstream_cx_http1_total.get(), 3);
        assert_eq!(fixture.stats.ssl_handshake.get(), 3);
        fixture.assert_nothing_held();
    });
}

#[test]
fn hosts_with_auto_sni_do_not_share_connections() {
    on_worker(async {
        let server = Server::start(&[], false).await;
        let fixture = server.fixture(|cluster| cluster.http.auto_sni = true);
        for host in ["one.example:443", "two.example", "one.example", "127.0.0.1"] {
            let need = Need {
                priority: Priority::Default,
                downstream: Protocol::Http1,
                host: Some(host),
                client: &Client::default(),
                presence: &Presence::default(),
                alpn: None,
                reuse: Reuse::Any,
            };
            let lease = fixture.pool.acquire(need).await.unwrap();
            assert_eq!(text(lease.send(get("/")).await.unwrap()).await, "ok");
        }
        let names = ["one.example", "two.example", "configured.example"];
        assert_eq!(*server.names.borrow(), names.map(|name| Some(name.to_owned())));
    });
}

#[test]
fn a_certificate_of_a_stranger_is_refused() {
    on_worker(async {
        let server = Server::start(&[], false).await;
        let stranger = Authority::self_signed("other").unwrap();
        let fixture = server.trusted_by(&stranger, |_| {});
        let error = fixture.lease(Reuse::Any).await.unwrap_err();
        assert!(matches!(error, ConnectError::Certificate(_)), "{error}");
        assert_eq!(error.reset_reason(), "remote connection failure");
        assert_eq!(fixture.stats.ssl_fail_verify_error.get(), 1);
        assert_eq!(fixture.stats.ssl_connection_error.get(), 0);
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_server_that_wants_a_certificate_says_so_after_the_handshake() {
    on_worker(async {
        let server = Server::start(&[], true).await;
        let fixture = server.fixture(|_| {});
        let (reason, transport) = match fixture.lease(Reuse::Any).await {
            Err(error) => (error.reset_reason(), error.transport_failure()),
            Ok(lease) => {
                let error = lease.send(get("/")).await.unwrap_err();
                assert_eq!(error.cause, Cause::Closed);
                (error.cause.reset_reason(), error.transport_failure())
            }
        };
        assert!(["connection termination", "remote connection failure"].contains(&reason));
        let transport = transport.unwrap();
        assert!(
            transport.contains("CertificateRequired") || reason.starts_with("remote"),
            "{transport}"
        );
    });
}

#[test]
fn new_certificates_are_used_for_new_connections_only() {
    on_worker(async {
        let server = Server::start(&[], false).await;
        let fixture = server.fixture(|_| {});
        let under_way = fixture.lease(Reuse::Any).await.unwrap();
        let tls = fixture.settings.tls.clone().unwrap();
        let client = Arc::new(ClientTls::build(&tls.config, &Secrets::default()).unwrap());
        let renewed = Settings { tls: Some(Tls { client, ..tls }), ..fixture.settings.clone() };
        fixture.pool.reconfigure(renewed);
        assert_eq!(text(under_way.send(get("/")).await.unwrap()).await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 2);
    });
}
