//! Swaps of everything while three protocols carry load: no request may notice.

use std::path::Path;
use std::time::Duration;

use harness::client::tls::TlsOptions;
use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::load::{Account, Load};
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Proxy, Route, Value, json,
};

use tokio::task::JoinHandle;

use super::{certificate_secret, table};

/// How hard the load scenarios push: a taste in every run, everything with `LOAD=full`.
struct Scale {
    swaps: u32,
    rate: u32,
    duration: Duration,
}

impl Scale {
    fn of_this_run() -> Self {
        if std::env::var("LOAD").is_ok_and(|load| load == "full") {
            return Self { swaps: 100, rate: 2_000, duration: Duration::from_secs(60) };
        }
        Self { swaps: 20, rate: 150, duration: Duration::from_secs(4) }
    }
}

/// Everything swapped under load: routes, weights, clusters, certificates, over three protocols.
mod no_request_notices_a_swap {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn outrigger() {
        super::no_request_notices_a_swap(harness::Program::Outrigger).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn envoy() {
        if harness::Program::Envoy.is_installed() {
            super::no_request_notices_a_swap(harness::Program::Envoy).await;
        }
    }
}

async fn no_request_notices_a_swap(program: Program) {
    let scale = Scale::of_this_run();
    let pki = Pki::new();
    let (server, client) = (pki.workload("server"), pki.workload("client"));
    let bootstrap = Bootstrap::new();
    let files = Files::new(bootstrap.dir(), &pki).await;
    files.swap(0);
    let mut context = pki.mutual(&server);
    context["common_tls_context"]["tls_certificates"].take();
    context["common_tls_context"]["tls_certificate_sds_secret_configs"] =
        json!([{"name": "own", "sds_config": files.secret.source()}]);
    let http = Http::routes_from_file("table", files.routes.path());
    let proxy = bootstrap
        .with("dynamic_resources.cds_config", files.clusters.source())
        .listener(Listener::new("main", http.clone()))
        .listener(Listener::new("mtls", http).tls(context))
        .start(program)
        .await;

    let loads = start_loads(&proxy, &pki.client(Some(&client)), &scale);
    for nth in 1..=scale.swaps {
        tokio::time::sleep(scale.duration / (scale.swaps + 1)).await;
        files.swap(nth);
    }
    let mut total = 0;
    for load in loads {
        let account = load.await.unwrap();
        account.assert_flawless();
        total += account.total();
    }
    println!("{} swaps during {total} requests in {:?}", scale.swaps, scale.duration);
    eventually_true("the last swap", async || {
        let path = format!("/only-in-{}", scale.swaps);
        proxy.get(&path).send().await.text() == "x"
    })
    .await;
}

/// Half of the load over HTTP/1.1, a quarter over HTTP/2, a quarter over mutual TLS.
fn start_loads(proxy: &Proxy, tls: &TlsOptions, scale: &Scale) -> [JoinHandle<Account>; 4] {
    let mtls = proxy.address("mtls");
    [
        (proxy.client(), 2),
        (Client::http2(proxy.address("main")), 4),
        (Client::http1(mtls).tls(tls.clone()), 8),
        (Client::http2(mtls).tls(tls.clone()), 8),
    ]
    .map(|(client, share)| {
        let load = Load::on(client).per_second(scale.rate / share).over(4).lasting(scale.duration);
        tokio::spawn(load.run(|client| client.get("/")))
    })
}

/// Everything that a swap replaces, and the backends behind it.
struct Files<'a> {
    routes: DiscoveryFile,
    clusters: DiscoveryFile,
    secret: DiscoveryFile,
    backends: [Backend; 2],
    pki: &'a Pki,
}

impl<'a> Files<'a> {
    async fn new(dir: &Path, pki: &'a Pki) -> Self {
        Self {
            routes: DiscoveryFile::routes(dir),
            clusters: DiscoveryFile::clusters(dir),
            secret: DiscoveryFile::secret(dir, "own"),
            backends: [Backend::echo("v1").await, Backend::echo("v2").await],
            pki,
        }
    }

    /// New routes and weights, changed clusters and a new certificate, none like the one before.
    fn swap(&self, nth: u32) {
        let weights = [("v1", 1 + nth % 100), ("v2", 100 - nth % 100)];
        self.routes.publish([table(
            "table",
            [
                Route::path(&format!("/only-in-{nth}")).direct(200, "x"),
                Route::prefix("/").to_weighted(weights),
            ],
        )]);
        self.clusters.publish(["v1", "v2"].iter().zip(&self.backends).map(
            |(name, backend)| -> Value {
                let timeout = format!("{}s", 5 + nth % 7);
                Cluster::new(name).endpoint(backend).with("connect_timeout", timeout).into()
            },
        ));
        self.secret.publish([certificate_secret("own", &self.pki.workload("server"))]);
    }
}
