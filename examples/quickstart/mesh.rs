//! Starts the parts in order, waits until they serve, and ends them together.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use certs::{Authority, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::MeshOptions;

const EDGE: &str = include_str!("edge.yaml");
const SIDECAR: &str = include_str!("sidecar.yaml");

/// How long a part may take to serve.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// One running part; dropping it ends the process.
struct Part {
    name: &'static str,
    process: Child,
}

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
        (name, status) = first_to_end(&mut parts) => return Err(ended_early(dir, name, status)),
        () = asked_to_end() => return Ok(()),
    }
    print_what_to_try(dir, options);
    tokio::select! {
        (name, status) = first_to_end(&mut parts) => Err(ended_early(dir, name, status)),
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

fn start(dir: &Path, options: &MeshOptions) -> anyhow::Result<Vec<Part>> {
    let itself = std::env::current_exe().context("the path of this program")?;
    let (program, first): (&Path, &[&str]) = match &options.proxy {
        Some(program) => (program, &[]),
        None => (&itself, &["proxy"]),
    };
    let proxy = |name, file| {
        let rest = ["-c", file, "--concurrency", "1", "--disable-hot-restart"];
        spawn(dir, name, program, first.iter().chain(&rest))
    };
    let (v1, v2) = (options.v1_port.to_string(), options.v2_port.to_string());
    Ok(vec![
        spawn(dir, "backend-v1", &itself, ["backend", "--version", "v1", "--port", &v1])?,
        spawn(dir, "backend-v2", &itself, ["backend", "--version", "v2", "--port", &v2])?,
        proxy("sidecar", "sidecar.yaml")?,
        proxy("edge", "edge.yaml")?,
    ])
}

/// Starts one part in `dir`; what it says goes to `{name}.log` there.
fn spawn(
    dir: &Path,
    name: &'static str,
    program: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<Part> {
    let log = File::create(dir.join(format!("{name}.log")))?;
    let process = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(Part { name, process })
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

async fn first_to_end(parts: &mut [Part]) -> (&'static str, ExitStatus) {
    loop {
        for part in parts.iter_mut() {
            if let Ok(Some(status)) = part.process.try_wait() {
                return (part.name, status);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn asked_to_end() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn ended_early(dir: &Path, name: &str, status: ExitStatus) -> anyhow::Error {
    let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
    anyhow::anyhow!("{name} ended ({status}); its log says:\n{}", log.trim_end())
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
