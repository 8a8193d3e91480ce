//! `outrigger-control run` as a process, over a folder that is edited while it serves.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::type_url::{ResourceType, Variant};

use crate::plane::{cluster, eventually, node, service};
use crate::sidecar::Sidecar;
use crate::status::{get, json};

/// The program, which is killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) xds: SocketAddr,
    pub(crate) http: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn over(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger-control"))
            .arg("run")
            .arg(folder)
            .args(["--xds", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = |after: &str| -> SocketAddr {
            let rest = first.split_once(after).expect(&first).1;
            rest.split([',', '/']).next().unwrap().parse().unwrap()
        };
        let (xds, http) = (address("proxies connect to "), address("http://"));
        let said = Arc::new(Mutex::new(String::new()));
        let all = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *all.lock() += &(line + "\n");
            }
        });
        Self { child, xds, http, said }
    }

    async fn says(&self, what: &str) {
        eventually(what, || self.said.lock().contains(what)).await;
    }

    /// Waits until all proxies have accepted a mesh, this one or a later one.
    pub(crate) async fn settled(&self, mesh: u64, proxies: u64) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let now = json(self.http, "/api/v1/mesh").await;
            let (proxies, wanted) = (&now["proxies"], &Value::from(proxies));
            let all = [&proxies["synced"], &proxies["connected"]] == [wanted, wanted];
            if now["number"].as_u64() >= Some(mesh) && all {
                return now;
            }
            assert!(Instant::now() < end, "{now}\n{}", self.said.lock());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn endpoints(sidecar: &Sidecar, name: &str) -> usize {
    let found = sidecar.held::<ClusterLoadAssignment>(ResourceType::Endpoints, &cluster(name));
    found.map_or(0, |it| it.endpoints.iter().map(|it| it.lb_endpoints.len()).sum())
}

#[tokio::test]
async fn a_folder_steers_proxies_and_a_broken_file_empties_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reviews.yaml");
    fs::write(&file, service("reviews", &["10.0.0.1"])).unwrap();
    fs::write(folder.path().join("ratings.yaml"), service("ratings", &["10.0.0.2"])).unwrap();
    let control = Running::over(folder.path());
    let mut sidecar =
        Sidecar::connect(control.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    eventually("endpoints", || endpoints(&sidecar, "reviews") == 1).await;

    fs::write(&file, service("reviews", &["10.0.0.1", "10.0.0.3"])).unwrap();
    eventually("the edit", || endpoints(&sidecar, "reviews") == 2).await;
    control.settled(2, 1).await;
    control.says("mesh 2: 1 of 1 proxies have it").await;

    // It is told, and the mesh stays; what else changes still comes.
    fs::write(&file, "kind: [\n").unwrap();
    fs::write(folder.path().join("ratings.yaml"), service("ratings", &["10.0.0.2", "10.0.0.4"]))
        .unwrap();
    control.says("Error [OUT0001]").await;
    eventually("the other edit", || endpoints(&sidecar, "ratings") == 2).await;
    let mesh = control.settled(3, 1).await;
    assert_eq!(mesh["findings"]["errors"], 1);
    assert!(sidecar.held::<Cluster>(ResourceType::Cluster, &cluster("reviews")).is_some());
    assert_eq!(endpoints(&sidecar, "reviews"), 2);

    // Another one takes over, and has nothing new to say.
    fs::write(&file, service("reviews", &["10.0.0.1", "10.0.0.3"])).unwrap();
    let next = Running::over(folder.path());
    sidecar.arrived();
    sidecar.reconnect(next.xds, Variant::Incremental).await;
    next.settled(1, 1).await;
    let sent: Vec<_> = sidecar.arrived().into_iter().flat_map(|it| it.names).collect();
    assert!(sent.is_empty(), "{sent:?}");
}

#[tokio::test]
async fn it_waits_for_a_folder_that_is_empty_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Running::over(folder.path());
    control.says("nothing to serve yet").await;
    assert_eq!(get(control.http, "/ready").await.0, 503);
    fs::write(folder.path().join("reviews.yaml"), service("reviews", &["10.0.0.1"])).unwrap();
    control.settled(1, 0).await;
    let sidecar =
        Sidecar::connect(control.xds, Variant::StateOfTheWorld, node("web", "10.0.0.9")).await;
    eventually("endpoints", || endpoints(&sidecar, "reviews") == 1).await;

    let id = control.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(control.child.wait().unwrap().code(), Some(0));
    eventually("an end", || sidecar.seen.lock().ended.is_some()).await;
    assert_eq!(endpoints(&sidecar, "reviews"), 1, "it keeps what it has");
}
