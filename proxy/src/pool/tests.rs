//! Pools against real sockets: servers here are scripts that say what happens after each request.

mod http1;
mod http2;
mod tls;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;

use super::circuit_breaker::{Breaker, LocalBreaker};
use super::*;
use crate::config::cluster::{Discovery, HostPolicy, LbPolicy, UpstreamHttp};
use crate::net::body::RequestBody;

/// A cluster with Envoy's defaults and no endpoints.
pub(crate) fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        stat_name: name.into(),
        discovery: Discovery::Static(Arc::default()),
        connect_timeout: Duration::from_secs(5),
        lb_policy: LbPolicy::default(),
        subsets: None,
        panic_threshold: 50,
        locality_lb: Default::default(),
        buffer_limit: 1 << 20,
        circuit_breakers: Default::default(),
        outlier_detection: None,
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Http1,
            http2: Default::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: 0,
            max_stream_duration: None,
            auto_sni: false,
            override_auto_sni_header: None,
            auto_san_validation: false,
            enable_trailers: false,
            max_headers_count: 100,
            max_response_headers: 60 << 10,
        }
        .into(),
        tls: None,
        transport_socket_matches: Vec::new(),
        hosts: HostPolicy::default(),
        connecting: Default::default(),
        metadata: None,
        keeps_alpn: false,
    }
}

/// One pool with everything that can be looked at from outside.
struct Fixture {
    pool: Rc<HostPool>,
    stats: Arc<ClusterStats>,
    breaker: Arc<Breaker>,
    load: Arc<Load>,
    settings: Settings,
}

impl Fixture {
    fn new(address: SocketAddr, edit: impl FnOnce(&mut Cluster)) -> Self {
        Self::with_tls(address, None, edit)
    }

    fn with_tls(address: SocketAddr, tls: Option<Tls>, edit: impl FnOnce(&mut Cluster)) -> Self {
        let mut cluster = cluster("test");
        edit(&mut cluster);
        let [breaker, high] =
            cluster.circuit_breakers.each_ref().map(|limits| Arc::new(Breaker::new(limits)));
        let stats = Arc::new(ClusterStats::default());
        let load = Arc::new(Load::default());
        let settings = Settings {
            address: address.into(),
            additional_addresses: Arc::default(),
            hostname: "".into(),
            cluster: Arc::new(cluster),
            tls,
        };
        let common = Common {
            stats: Arc::clone(&stats),
            counts: Arc::default(),
            load: Arc::clone(&load),
            breakers: [LocalBreaker::new(Arc::clone(&breaker)), LocalBreaker::new(high)],
        };
        let pool = Rc::new(HostPool::new(settings.clone(), common));
        Self { pool, stats, breaker, load, settings }
    }

    async fn lease(&self, reuse: Reuse) -> Result<Lease, ConnectError> {
        self.lease_for(Priority::Default, reuse).await
    }

    async fn lease_for(&self, priority: Priority, reuse: Reuse) -> Result<Lease, ConnectError> {
        let need = Need {
            priority,
            downstream: Protocol::Http1,
            host: None,
            client: &Client::default(),
            presence: &Presence::default(),
            alpn: None,
            reuse,
        };
        self.pool.acquire(need).await
    }

    /// Sends so many requests at once, and says of each what was answered or why not.
    async fn get_at_once(&self, priority: Priority, count: usize) -> Vec<String> {
        let get = async || match self.lease_for(priority, Reuse::Any).await {
            Ok(lease) => text(lease.send(get("/")).await.unwrap()).await,
            Err(error) => error.reset_reason().to_owned(),
        };
        futures_util::future::join_all((0..count).map(|_| get())).await
    }

    async fn send(&self, reuse: Reuse) -> Result<Response<ResponseBody>, SendError> {
        self.lease(reuse).await.unwrap().send(get("/")).await
    }

    /// Sends a GET and reads the whole response.
    async fn get(&self) -> String {
        text(self.send(Reuse::Any).await.unwrap()).await
    }

    /// Waits until no connection is open.
    async fn all_closed(&self) {
        eventually(|| self.stats.upstream_cx_active.get() == 0).await;
    }

    fn assert_nothing_held(&self) {
        use super::circuit_breaker::Resource;
        assert_eq!(self.load.active(), 0);
        assert_eq!(self.stats.upstream_rq_active.get(), 0);
        assert_eq!(self.stats.upstream_rq_pending_active.get(), 0);
        for resource in [Resource::Pending, Resource::Requests] {
            assert_eq!(self.breaker.read(resource).taken, 0, "{resource:?}");
        }
        let open = self.stats.upstream_cx_active.get();
        assert_eq!(i64::from(self.breaker.read(Resource::Connections).taken), open);
    }
}

fn get(path: &str) -> Request<RequestBody> {
    let builder = Request::builder().uri(path).header("host", "shop.example");
    builder.body(RequestBody::Empty).unwrap()
}

async fn text(response: Response<ResponseBody>) -> String {
    let bytes: Bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits until `condition` holds.
async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..400 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("still not so after two seconds");
}

/// Runs `test` as a worker would.
fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test should end");
    });
}

#[test]
fn a_server_name_is_a_host_without_port() {
    assert_eq!(host_of("shop.example:443"), "shop.example");
    assert_eq!(host_of("shop.example"), "shop.example");
    assert_eq!(host_of("127.0.0.1:80"), "127.0.0.1");
    assert_eq!(host_of("[::1]:80"), "::1");
    assert_eq!(host_of("[::1]"), "::1");
    assert!(is_name("shop.example") && !is_name("127.0.0.1") && !is_name("::1"));
}
