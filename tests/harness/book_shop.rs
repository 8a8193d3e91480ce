//! The book shop of `examples/bookinfo` as a mesh: a control plane, a gateway, and a sidecar beside each service, each of
//! them the program that a scenario wants it to be. All that passes between the proxies is mutual TLS.

mod objects;
mod proxies;
mod services;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use certs::{Authority, CaFiles, Request};
use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;

use self::services::Service;
use crate::bootstrap::Bootstrap;
use crate::client::Client;
use crate::control_plane::ControlPlane;
use crate::program::Program;
use crate::proxy::Proxy;

/// The gateway's workload, service and account.
pub const GATEWAY: &str = "istio-ingressgateway";
/// The other workloads, each with a service account of its own kind.
pub const WORKLOADS: [&str; 6] =
    ["productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"];
/// Where all services are met.
const PORT: u16 = 9080;

/// A mesh with its services; all of it ends when dropped.
#[derive(Debug)]
pub struct BookShop {
    /// What steers it.
    pub control: ControlPlane,
    gateway: Proxy,
    sidecars: Vec<Proxy>,
    pods: Vec<SocketAddr>,
    services: Vec<Service>,
    _trust: Trust,
}

/// A pod, or the gateway.
#[derive(Debug)]
struct Workload {
    name: &'static str,
    namespace: &'static str,
    account: String,
    labels: Value,
    pod: SocketAddr,
    /// Where its service meets the others; the gateway has none.
    outbound: Option<SocketAddr>,
}

/// The authority's files, and what workloads prove themselves with.
#[derive(Debug)]
struct Trust {
    dir: TempDir,
    authority: Authority,
}

/// The shop's page, as one visitor got it.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its status.
    pub status: u16,
    /// Which reviews are on it, such as `v2` or `v2 without ratings`.
    pub reviews: String,
    /// How long it took.
    pub took: Duration,
}

impl BookShop {
    /// Opens it with these files (name and text) and the services, pods and endpoints that a cluster adds to them.
    /// `variant` is how proxies ask (`ApiConfigSource.api_type`), `program` tells what the proxy of a workload is.
    pub async fn open<'a>(
        files: impl IntoIterator<Item = (&'a str, String)>,
        variant: &str,
        program: impl Fn(&str) -> Program,
    ) -> Self {
        let net = [fastrand::u8(2..=250), fastrand::u8(..)];
        let mut workloads: Vec<_> =
            (10..).zip(WORKLOADS).map(|(number, name)| Workload::new(name, net, number)).collect();
        let services =
            workloads.iter().map(|it| Service::start(it.name, it.outbound.expect("a sidecar")));
        let services = join_all(services).await;
        let mut at_the_gate = Bootstrap::new();
        workloads.push(Workload::gateway(at_the_gate.reserve("main"), net));
        let trust = Trust::new(&workloads);
        let files = files.into_iter().chain([
            ("cluster.yaml", objects::cluster(&workloads)),
            ("sidecars.yaml", objects::sidecars(&workloads, &services)),
        ]);
        let arguments = trust.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let control = ControlPlane::over(files, &arguments);
        let bootstraps =
            WORKLOADS.iter().map(|_| Bootstrap::new()).chain([at_the_gate]).collect::<Vec<_>>();
        let starting = workloads.iter().zip(bootstraps).map(|(workload, bootstrap)| {
            let program = program(workload.name);
            let bootstrap = proxies::identified(bootstrap, workload, variant);
            let bootstrap = match program {
                Program::Envoy => proxies::by_certificate(bootstrap, workload, &trust, &control),
                Program::Outrigger => proxies::by_token(bootstrap, workload, &trust, &control),
            };
            bootstrap.start(program)
        });
        let mut sidecars = join_all(starting).await;
        let gateway = sidecars.pop().expect("the last of them");
        let pods = workloads.iter().map(|it| it.pod).collect();
        let shop = Self { control, gateway, sidecars, pods, services, _trust: trust };
        shop.control.settled(1, shop.len()).await;
        shop
    }

    /// How many proxies there are.
    fn len(&self) -> u64 {
        u64::try_from(self.sidecars.len() + 1).expect("a few")
    }

    /// The gateway.
    pub fn gateway(&self) -> &Proxy {
        &self.gateway
    }

    /// The sidecar of a workload.
    pub fn sidecar(&self, workload: &str) -> &Proxy {
        &self.sidecars[at(workload)]
    }

    /// Where the sidecar of a workload is met by other sidecars.
    pub fn pod(&self, workload: &str) -> SocketAddr {
        self.pods[at(workload)]
    }

    /// All proxies.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.sidecars.iter().chain([&self.gateway])
    }

    /// Puts a file in its place, and waits until every proxy has accepted what comes of it.
    pub async fn apply(&self, name: &str, text: &str) {
        let before =
            self.control.status("/api/v1/mesh").await["number"].as_u64().expect("a number");
        self.control.write(name, text);
        self.control.settled(before + 1, self.len()).await;
    }

    /// The page, through the gateway.
    pub async fn page(&self, user: Option<&str>) -> Page {
        let begun = Instant::now();
        let call = user
            .into_iter()
            .fold(self.visitor().get("/productpage"), |call, user| call.header("end-user", user));
        let reply = call.send().await;
        let reviews = reply.header("x-backend").unwrap_or_default();
        Page { status: reply.status, reviews, took: begun.elapsed() }
    }

    /// A client of the gateway.
    pub fn visitor(&self) -> Client {
        self.gateway.client()
    }

    /// Who called the service of a workload, as its sidecar says (`x-forwarded-client-cert`).
    pub fn callers(&self, workload: &str) -> Vec<String> {
        self.services[at(workload)].callers()
    }

    /// Fails if a proxy has refused anything.
    pub async fn assert_everything_is_accepted(&self) {
        for proxy in self.proxies() {
            let dump = proxy.admin().get("/config_dump?include_eds").send().await.text();
            assert!(dump.contains("dynamic_active_clusters"), "{dump}");
            let wrong: Vec<_> = dump.lines().filter(|it| it.contains("error_state")).collect();
            assert!(wrong.is_empty(), "{:?}: {dump}", proxy.program());
            let stats = proxy.admin().get("/stats?filter=update_rejected").send().await.text();
            let rejected: Vec<_> = stats.lines().filter(|line| !line.ends_with(": 0")).collect();
            assert!(!stats.is_empty() && rejected.is_empty(), "{rejected:?}");
        }
        let proxies = self.control.status("/api/v1/proxies").await;
        for proxy in proxies.as_array().expect("a list") {
            let kinds = proxy["xds"].as_object().expect("kinds");
            assert!(kinds.values().all(|kind| kind["nacks"] == 0), "{proxy}");
        }
    }
}

fn at(workload: &str) -> usize {
    WORKLOADS.iter().position(|it| *it == workload).expect("a workload")
}

impl Workload {
    fn new(name: &'static str, [a, b]: [u8; 2], number: u8) -> Self {
        let (app, version) = name.split_once('-').expect("a version");
        Self {
            name,
            namespace: "default",
            account: format!("bookinfo-{app}"),
            labels: serde_json::json!({"app": app, "version": version}),
            pod: (Ipv4Addr::new(127, a, b, number), PORT).into(),
            outbound: Some((Ipv4Addr::new(127, a, b, number + 100), PORT).into()),
        }
    }

    fn gateway(at: SocketAddr, [a, b]: [u8; 2]) -> Self {
        Self {
            name: GATEWAY,
            namespace: "istio-system",
            account: GATEWAY.to_owned(),
            labels: serde_json::json!({"app": GATEWAY, "istio": "ingressgateway"}),
            pod: (Ipv4Addr::new(127, a, b, 1), at.port()).into(),
            outbound: None,
        }
    }

    fn token(&self) -> String {
        format!("token-of-{}", self.name)
    }
}

impl Trust {
    fn new(workloads: &[Workload]) -> Self {
        let dir = tempfile::Builder::new().prefix("outrigger-trust-").tempdir().expect("a folder");
        let authority = Authority::self_signed("mesh root").expect("a root");
        CaFiles::within(dir.path()).write(&authority).expect("its files");
        let trust = Self { dir, authority };
        std::fs::write(trust.file("root.pem"), trust.authority.root_pem()).expect("its root");
        let mut tokens = String::new();
        for it in workloads {
            let (token, account) = (it.token(), format!("{}:{}", it.namespace, it.account));
            tokens += &format!("{token},system:serviceaccount:{account}\n");
            std::fs::write(trust.file(&format!("{}.token", it.name)), &token).expect("a token");
            let id = format!("spiffe://cluster.local/ns/{}/sa/{}", it.namespace, it.account);
            let leaf = trust.authority.issue(&Request::default().uri(id)).expect("a certificate");
            std::fs::write(trust.file(&format!("{}.pem", it.name)), leaf.chain_pem).expect("it");
            std::fs::write(trust.file(&format!("{}.key", it.name)), leaf.key_pem).expect("a key");
        }
        std::fs::write(trust.file("tokens"), tokens).expect("tokens");
        trust
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the control plane is told of it.
    fn arguments(&self) -> Vec<String> {
        let tokens = self.file("tokens");
        ["--ca-dir", &self.dir.path().to_string_lossy(), "--token-file", &tokens.to_string_lossy()]
            .map(ToOwned::to_owned)
            .into()
    }
}
