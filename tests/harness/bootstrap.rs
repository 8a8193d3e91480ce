//! Builds a bootstrap with Envoy's own field names; anything without a method is set by its path.

mod cluster;
mod listener;
mod log;
mod route;
mod tcp;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use cluster::Cluster;
pub use listener::{Filters, Http, Listener};
pub use route::{Route, VirtualHost};
pub use tcp::Tcp;

use crate::port::Port;
use crate::program::Program;
use crate::proxy::Proxy;
use crate::yaml::to_yaml;

/// A bootstrap under construction, with the directory and the ports it will use.
#[derive(Debug)]
pub struct Bootstrap {
    value: Value,
    dir: TempDir,
    admin: Port,
    ports: Vec<(String, Port)>,
    arguments: Vec<String>,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self::new()
    }
}

impl Bootstrap {
    /// A bootstrap with an admin address and nothing else.
    pub fn new() -> Self {
        let admin = Port::reserve();
        let value = json!({
            "node": {"id": "test-node", "cluster": "test-cluster"},
            "admin": {"address": socket_address(admin.address())},
            "static_resources": {"listeners": [], "clusters": []},
        });
        let dir = tempfile::Builder::new().prefix("outrigger-test-").tempdir().unwrap();
        Self { value, dir, admin, ports: Vec::new(), arguments: Vec::new() }
    }

    /// One listener named `main` whose only virtual host takes every host to `routes`.
    pub fn routing(routes: impl IntoIterator<Item = Route>) -> Self {
        Self::http(Http::routing(routes))
    }

    /// One listener named `main` that serves `http`.
    pub fn http(http: Http) -> Self {
        Self::new().listener(Listener::new("main", http))
    }

    /// One listener named `main` whose connections `filters` take.
    pub fn tcp(filters: impl Into<Filters>) -> Self {
        Self::new().listener(Listener::new("main", filters))
    }

    /// Adds a listener, on a port reserved for it under its name.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        let (listener, port) = self.place(listener);
        self.list("listeners").push(listener);
        if let Some(port) = port {
            self.ports.push(port);
        }
        self
    }

    /// Gives `listener` a port without adding it: for listeners that a file brings. The address is
    /// known under the listener's name.
    pub fn reserve_for(&mut self, listener: Listener) -> Value {
        let (value, port) = self.place(listener);
        self.ports.extend(port);
        value
    }

    /// Reserves a port under `name`, for bootstraps that are not built here.
    pub fn reserve(&mut self, name: &str) -> std::net::SocketAddr {
        let port = Port::reserve();
        let address = port.address();
        self.ports.push((name.to_owned(), port));
        address
    }

    /// The address reserved for the admin API.
    pub fn admin_address(&self) -> std::net::SocketAddr {
        self.admin.address()
    }

    fn place(&self, listener: Listener) -> (Value, Option<(String, Port)>) {
        let name = listener.name().to_owned();
        if self.ports.iter().any(|(taken, _)| *taken == name) {
            let address = self.address(&name);
            return (listener.at(address), None);
        }
        let port = Port::reserve();
        (listener.at(port.address()), Some((name, port)))
    }

    /// Adds a cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.list("clusters").push(cluster.into());
        self
    }

    /// Sets the field at a dotted `path` from the bootstrap's root.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }

    /// Adds a command-line argument of the proxy.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The directory that lives as long as the proxy.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into the proxy's directory and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The address reserved for listener `name`.
    pub fn address(&self, name: &str) -> std::net::SocketAddr {
        let found = self.ports.iter().find(|(listener, _)| listener == name);
        found.unwrap_or_else(|| panic!("no listener {name}")).1.address()
    }

    /// The bootstrap as YAML.
    pub fn to_yaml(&self) -> String {
        to_yaml(&self.value)
    }

    /// What `program` says against this bootstrap in `--mode validate`; panics if it takes it.
    pub fn refusal(&self, program: Program) -> String {
        let file = self.file("refused.yaml", self.to_yaml());
        let arguments = ["--mode", "validate", "-c"];
        let output = crate::proxy::command(program).args(arguments).arg(file).output().unwrap();
        assert!(!output.status.success(), "{program:?} takes it");
        [output.stdout, output.stderr]
            .map(|said| String::from_utf8_lossy(&said).into_owned())
            .concat()
    }

    /// Starts `program` with this bootstrap and waits until it is ready.
    pub async fn start(self, program: Program) -> Proxy {
        let yaml = self.to_yaml();
        self.start_with_text(program, &yaml).await
    }

    /// As [`start`](Self::start), with `yaml` in place of the built text.
    pub async fn start_with_text(self, program: Program, yaml: &str) -> Proxy {
        self.file("bootstrap.yaml", yaml);
        Proxy::start(program, self.dir, self.admin, self.ports, self.arguments).await
    }

    fn list(&mut self, name: &str) -> &mut Vec<Value> {
        self.value["static_resources"][name].as_array_mut().expect("set in new()")
    }
}

/// Envoy's `Address` of a socket.
pub fn socket_address(address: std::net::SocketAddr) -> Value {
    let (ip, port) = (address.ip().to_string(), address.port());
    json!({"socket_address": {"address": ip, "port_value": port}})
}

/// Envoy's `type.googleapis.com/` URL of `name`, with the fields of `value`.
pub fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = format!("type.googleapis.com/{name}").into();
    value
}

/// Sets the field at a dotted path; numbers index lists, missing objects appear.
fn set(target: &mut Value, path: &str, value: Value) {
    let mut place = target;
    for step in path.split('.') {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    *place = value;
}
