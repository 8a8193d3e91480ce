//! Starts the parts in order, waits until they serve, and ends them together.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use certs::{Authority, Request};
use examples::processes::{Processes, asked_to_end};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::MeshOptions;

const EDGE: &str = include_str!("edge.yaml");
const SIDECAR: &str = include_str!("sidecar.yaml");

/// How long a part may take to serve.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Runs the mesh until a signal, or until one of its parts ends.
pub(crate) async fn run(options: &MeshOptions) -> anyhow::Result<()> {
    let temporary;
    let dir = match &options.state_dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            dir.as_path()
        }
        None => {
            temporary = tempfile::Builder::new().prefix("outrigger-quickstart-").tempdir()?;
            temporary.path()
        }
    };
    mint_certificates(&dir.join("certs"))?;
    write_configuration(dir, options)?;

    let mut parts = start(dir, options)?;
    tokio::select! {
        ready = until_ready(options) => ready?,
        error = parts.first_to_end() => return Err(error),
        () = asked_to_end() => return Ok(()),
    }
    print_what_to_try(dir, options);
    tokio::select! {
        error = parts.first_to_end() => Err(error),
        () = asked_to_end() => Ok(()),
    }
}

/// A root, and an identity for each proxy.
fn mint_certificates(dir: &Path) -> anyhow::Result<()> {
    let authority = Authority::self_signed("quickstart root")?;
    for account in ["edge", "sidecar"] {
        let uri = format!("spiffe://demo.local/ns/default/sa/{account}");
        let request = Request::default().uri(uri).dns(format!("{account}.demo.local"));
        let leaf = authority.issue(&request)?;
        let dir = dir.join(account);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("ca.pem"), authority.root_pem())?;
        std::fs::write(dir.join("cert.pem"), &leaf.chain_pem)?;
        certs::key::write_private(&dir.join("key.pem"), &leaf.key_pem)?;
    }
    Ok(())
}

/// The two bootstraps, with the ports that were asked for.
fn write_configuration(dir: &Path, options: &MeshOptions) -> anyhow::Result<()> {
    let ports = [
        (8080, options.traffic_port),
        (9901, options.admin_port),
        (8443, options.sidecar_port),
        (9902, options.sidecar_admin_port),
        (9001, options.v1_port),
        (9002, options.v2_port),
    ];
    for (name, text) in [("edge.yaml", EDGE), ("sidecar.yaml", SIDECAR)] {
        // By way of a mark, so that no port is replaced twice.
        let marked = ports.iter().fold(text.to_owned(), |text, (documented, _)| {
            text.replace(&port_field(*documented), &format!("port_value: <{documented}>"))
        });
        let text = ports.iter().fold(marked, |text, (documented, wanted)| {
            text.replace(&format!("port_value: <{documented}>"), &port_field(*wanted))
        });
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

fn port_field(port: u16) -> String {
    format!("port_value: {port}")
}

fn start(dir: &Path, options: &MeshOptions) -> anyhow::Result<Processes> {
    let itself = std::env::current_exe().context("the path of this program")?;
    let (v1, v2) = (options.v1_port.to_string(), options.v2_port.to_string());
    let mut parts = Processes::new(dir);
    for (name, version, port) in [("backend-v1", "v1", &v1), ("backend-v2", "v2", &v2)] {
        parts.start(name, &itself, ["backend", "--version", version, "--port", port], &[])?;
    }
    let (program, first): (&Path, &[&str]) = match &options.proxy {
        Some(program) => (program, &[]),
        None => (&itself, &["proxy"]),
    };
    for (name, file) in [("sidecar", "sidecar.yaml"), ("edge", "edge.yaml")] {
        let rest = ["-c", file, "--concurrency", "1", "--disable-hot-restart"];
        parts.start(name, program, first.iter().chain(&rest), &[])?;
    }
    Ok(parts)
}

/// Resolves when a request has come through every part.
async fn until_ready(options: &MeshOptions) -> anyhow::Result<()> {
    let whole_way = async {
        while !answers(options.traffic_port).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(START_DEADLINE, whole_way).await;
    in_time.with_context(|| format!("no answer through the mesh within {START_DEADLINE:?}"))
}

async fn answers(port: u16) -> bool {
    let exchange = async {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    exchange.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn print_what_to_try(dir: &Path, options: &MeshOptions) {
    let MeshOptions { traffic_port: traffic, admin_port: admin, sidecar_port: sidecar, .. } =
        options;
    println!(
        "The mesh is up: curl → edge → mutual TLS → sidecar → backend v1 (90 %) or v2 (10 %)

  One request:
    curl localhost:{traffic}
  A hundred, counted by version:
    for i in $(seq 100); do curl -s localhost:{traffic}; done | grep -o 'v[12]' | sort | uniq -c
  Premium users always reach v2:
    curl -H 'x-user-type: premium' localhost:{traffic}
  Nobody reaches the sidecar in plain text:
    curl localhost:{sidecar}
  What the edge has seen:
    curl -s localhost:{admin}/stats/prometheus | grep upstream_rq_total
    curl -s localhost:{admin}/clusters
  Change the weights while it runs:
    $EDITOR {edge}

Everything is in {dir}; Ctrl-C ends it all.",
        edge = dir.join("edge.yaml").display(),
        dir = dir.display(),
    );
}
