//! Swaps of everything while three protocols carry load: no request may notice.

use std::time::Duration;

use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::load::Load;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Route, Value, json,
};

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
    let apps = [Backend::echo("v1").await, Backend::echo("v2").await];
    let pki = Pki::new();
    let (server, client) = (pki.workload("server"), pki.workload("client"));
    let bootstrap = Bootstrap::new();
    let routes = DiscoveryFile::routes(bootstrap.dir());
    let clusters = DiscoveryFile::clusters(bootstrap.dir());
    let secrets = DiscoveryFile::secret(bootstrap.dir(), "own");
    let swap = |nth: u32| {
        let weights = [("v1", 1 + nth % 100), ("v2", 100 - nth % 100)];
        routes.publish([table(
            "table",
            [
                Route::path(&format!("/only-in-{nth}")).direct(200, "x"),
                Route::prefix("/").to_weighted(weights),
            ],
        )]);
        clusters.publish(["v1", "v2"].iter().zip(&apps).map(|(name, app)| -> Value {
            let timeout = format!("{}s", 5 + nth % 7);
            Cluster::new(name).endpoint(app).with("connect_timeout", timeout).into()
        }));
        secrets.publish([certificate_secret("own", &pki.workload("server"))]);
    };
    swap(0);
    let secret = json!({"name": "own", "sds_config": secrets.source()});
    let mut context = pki.mutual(&server);
    context["common_tls_context"]["tls_certificates"].take();
    context["common_tls_context"]["tls_certificate_sds_secret_configs"] = json!([secret]);
    let http = Http::routes_from_file("table", routes.path());
    let proxy = bootstrap
        .with("dynamic_resources.cds_config", clusters.source())
        .listener(Listener::new("main", http.clone()))
        .listener(Listener::new("mtls", http).tls(context))
        .start(program)
        .await;

    let tls = pki.client(Some(&client));
    let load = |client: Client, share: u32| {
        let load = Load::on(client).per_second(scale.rate / share).over(4).lasting(scale.duration);
        tokio::spawn(load.run(|client| client.get("/")))
    };
    let loads = [
        load(proxy.client(), 2),
        load(Client::http2(proxy.address("main")), 4),
        load(Client::http1(proxy.address("mtls")).tls(tls.clone()), 8),
        load(Client::http2(proxy.address("mtls")).tls(tls), 8),
    ];
    for nth in 1..=scale.swaps {
        tokio::time::sleep(scale.duration / (scale.swaps + 1)).await;
        swap(nth);
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
