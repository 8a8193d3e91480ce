//! Brings the quickstart up as the README says, drives it as the README says, and ends it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use harness::eventually::{eventually, eventually_true};
use harness::port::Port;
use harness::{Client, Program, RawConnection};

/// A running quickstart; dropping it ends all its processes.
struct Quickstart {
    process: Child,
    ports: [Port; 6],
}

const TRAFFIC: usize = 0;
const ADMIN: usize = 1;
const SIDECAR: usize = 2;

impl Quickstart {
    async fn start(program: Program) -> Self {
        let ports: [Port; 6] = std::array::from_fn(|_| Port::reserve());
        let flags = [
            "--traffic-port",
            "--admin-port",
            "--sidecar-port",
            "--sidecar-admin-port",
            "--v1-port",
            "--v2-port",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
        for (flag, port) in flags.iter().zip(&ports) {
            command.arg(flag).arg(port.address().port().to_string());
        }
        if program.is_envoy() {
            command.arg("--proxy").arg(program.path().unwrap());
        }
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let mut quickstart = Self { process, ports };
        let client = Client::http1(quickstart.at(TRAFFIC));
        eventually("the quickstart's first answer", async || {
            let ended = quickstart.process.try_wait().unwrap();
            assert!(ended.is_none(), "the quickstart ended: {ended:?}");
            let reply = client.get("/").try_send().await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
        quickstart
    }

    fn at(&self, which: usize) -> SocketAddr {
        self.ports[which].address()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal("TERM");
            let _ = self.process.wait();
        }
    }
}

#[tokio::test]
async fn outrigger() {
    the_readme_holds(Program::Outrigger).await;
}

#[tokio::test]
async fn envoy() {
    if Program::Envoy.is_installed() {
        the_readme_holds(Program::Envoy).await;
    }
}

async fn the_readme_holds(program: Program) {
    let mut quickstart = Quickstart::start(program).await;
    let client = Client::http1(quickstart.at(TRAFFIC));
    let mut connection = client.connect().await.unwrap();

    let reply = connection.send(client.get("/hello")).await.unwrap().json();
    assert_eq!(reply["path"], "/hello");
    assert_eq!(reply["caller"], "spiffe://demo.local/ns/default/sa/edge");

    for _ in 0..50 {
        let premium = client.get("/").header("x-user-type", "premium");
        assert_eq!(connection.send(premium).await.unwrap().json()["version"], "v2");
    }

    let requests: u32 =
        if std::env::var("LOAD").is_ok_and(|load| load == "full") { 10_000 } else { 1_000 };
    let mut canary = 0;
    for _ in 0..requests {
        let reply = connection.send(client.get("/")).await.unwrap().json();
        canary += u32::from(reply["version"] == "v2");
    }
    // One percent of 10,000 is more than three standard deviations; of 1,000 five are allowed.
    let allowed = if requests == 10_000 { 100 } else { 47 };
    assert!(canary.abs_diff(requests / 10) <= allowed, "{canary} of {requests} to v2");

    let mut plain = RawConnection::open(quickstart.at(SIDECAR)).await;
    plain.write("GET / HTTP/1.1\r\nHost: v1.demo.local\r\n\r\n").await;
    let answer = plain.read_to_end().await;
    assert!(!answer.contains("200"), "plain text is refused: {answer}");

    let admin = Client::http1(quickstart.at(ADMIN));
    let metrics = admin.get("/stats/prometheus").send().await.text();
    assert!(metrics.contains("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"sidecar\"}"));

    quickstart.signal("INT");
    let status =
        eventually("the quickstart's end", async || quickstart.process.try_wait().unwrap());
    assert_eq!(status.await.code(), Some(0));
    for port in &quickstart.ports {
        eventually_true("all parts having ended", async || {
            Client::http1(port.address()).connect().await.is_err()
        })
        .await;
    }
}
