//! `outrigger-control run` as a real process over a folder of YAML, which scenarios edit.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use crate::backend::Backend;
use crate::client::Client;
use crate::eventually::eventually;

/// A control plane, which is killed when dropped.
#[derive(Debug)]
pub struct ControlPlane {
    folder: TempDir,
    arguments: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    xds: SocketAddr,
    /// Where it speaks TLS, if it has an authority.
    tls: Option<SocketAddr>,
    http: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ControlPlane {
    /// Serves these files, by name and text, with more arguments after the folder.
    pub fn over<'a>(
        files: impl IntoIterator<Item = (&'a str, String)>,
        arguments: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut control = Self { folder, arguments, running: None };
        control.start();
        control
    }

    /// Starts it, again after [`stop`](Self::stop), then at the same address.
    pub fn start(&mut self) {
        let before = self.running.take();
        let again = |of: Option<SocketAddr>| of.unwrap_or(([127, 0, 0, 1], 0).into()).to_string();
        let xds = again(before.as_ref().map(|it| it.xds));
        let tls = again(before.as_ref().and_then(|it| it.tls));
        drop(before);
        let has_authority = self.arguments.iter().any(|it| it == "--ca-dir");
        let tls = has_authority.then_some(["--xds-tls", &tls]);
        let mut child = Command::new(program())
            .arg("run")
            .arg(self.folder.path())
            .args(["--xds", &xds, "--http", "127.0.0.1:0"])
            .args(tls.into_iter().flatten())
            .args(&self.arguments)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut before = String::new();
        let first = lines
            .by_ref()
            .inspect(|line| before += line)
            .find(|it| it.contains("proxies connect to "));
        let first = first.unwrap_or_else(|| panic!("it does not serve: {before}"));
        let address = |after: &str| -> SocketAddr {
            let rest = first.split_once(after).unwrap().1;
            rest.split([',', '/']).next().unwrap().parse().unwrap()
        };
        let (xds, http) = (address("proxies connect to "), address("http://"));
        let tls = has_authority.then(|| address("with TLS to "));
        let said = Arc::new(Mutex::new(String::new()));
        let all = Arc::clone(&said);
        std::thread::spawn(move || lines.for_each(|line| *all.lock() += &(line + "\n")));
        self.running = Some(Running { child, xds, tls, http, said });
    }

    /// Kills it; its address is kept.
    pub fn stop(&mut self) {
        let running = self.running.as_mut().unwrap();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The folder that it serves.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces a file, in one step.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.folder.path().join(format!(".{name}"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.folder.path().join(name)).unwrap();
    }

    /// What it answers at a path of its status address.
    pub async fn status(&self, path: &str) -> Value {
        let reply = Client::http1(self.running().http).get(path).send().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        serde_json::from_str(&reply.text()).unwrap()
    }

    /// Waits until so many proxies have accepted everything of this mesh or a later one.
    pub async fn settled(&self, mesh: u64, proxies: u64) {
        eventually(&format!("{proxies} proxies to accept mesh {mesh}"), async || {
            let now = self.status("/api/v1/mesh").await;
            let counts =
                (now["proxies"]["connected"].as_u64()?, now["proxies"]["synced"].as_u64()?);
            (now["number"].as_u64()? >= mesh && counts == (proxies, proxies)).then_some(())
        })
        .await;
    }

    /// Where it speaks TLS; for one with an authority.
    pub fn tls(&self) -> SocketAddr {
        self.running().tls.expect("--ca-dir")
    }

    /// What it wrote to stderr.
    pub fn said(&self) -> String {
        self.running().said.lock().clone()
    }
}

impl From<&ControlPlane> for SocketAddr {
    fn from(control: &ControlPlane) -> Self {
        control.running().xds
    }
}

/// A service of namespace `shop` on port 80, with these backends behind it.
pub fn service(name: &str, backends: &[&Backend]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.10, ports: [{{name: http, port: 80}}]}}\n"
    );
    for (number, backend) in backends.iter().enumerate() {
        let address = backend.address();
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-{number}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n",
            address.port(),
            address.ip(),
        );
    }
    text
}

/// Cargo builds the binaries of a package next to `deps/`, where its integration tests run from.
fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.parent().unwrap().parent().unwrap().join("outrigger-control-under-test")
}
