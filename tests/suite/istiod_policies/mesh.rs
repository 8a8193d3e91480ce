//! The recorded mesh: what istiod sent to a proxy, served by a proxy in a network like that of its pod.
//!
//! Nothing of the resources is changed but whence they come and whose keys they are: they are in a bootstrap instead
//! of on a stream, and the secrets and key sets are a test's own. Addresses stay what they were, which takes a network
//! namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use certs::Request;
use harness::client::tls::TlsOptions;
use harness::pki::Identity;
use harness::{Bootstrap, Client, Issuer, Netns, Pki, Program, Proxy, Value, json};
use prost::Message as _;
use xds::envoy::service::discovery::v3::DiscoveryResponse;

/// Everybody's addresses: pods, services, and those that the policies speak of.
const NETWORKS: [&str; 5] =
    ["10.244.0.0/16", "10.96.0.0/12", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"];
/// Whom a sidecar says it calls for, so that its own connections are not redirected to it.
const SIDECAR: &str = "127.0.0.6";
/// Names by which clients ask for workloads.
const NAMES: [&str; 4] =
    ["productpage.default", "productpage.other", "mysqldb.data", "app.example.com"];

/// Where the recorded services are.
const SERVICES: &str = "10.96.0.0/12";

/// The recorded mesh, with authorities of a test's own.
#[derive(Debug)]
pub(crate) struct Mesh {
    network: Netns,
    pub(crate) recordings: PathBuf,
    pub(crate) pki: Pki,
    /// `https://issuer.example.com`
    pub(super) first: Issuer,
    /// `https://second.example.com`
    pub(super) second: Issuer,
}

impl Mesh {
    /// None, said loudly, without the recordings or where there can be no network.
    pub(crate) fn enter() -> Option<Self> {
        let recordings = crate::suites::find("istiod-1.30-ads")?;
        let network = Netns::enter()?;
        for block in NETWORKS {
            network.run(&format!("ip route add local {block} dev lo"));
        }
        Some(Self {
            network,
            recordings,
            pki: Pki::new(),
            first: Issuer::signing("https://issuer.example.com", "RS256"),
            second: Issuer::new("https://second.example.com"),
        })
    }

    /// Redirects connections to the pod to the port where its sidecar takes them, and those to services to the other.
    pub(crate) fn redirect(&self, pod: SocketAddr) {
        let pod = pod.ip();
        let to_pod = format!("-p tcp -d {pod} ! -s {SIDECAR} -j REDIRECT --to-ports 15006");
        self.network.run(&format!("iptables -t nat -A OUTPUT {to_pod}"));
        let to_services = format!("-p tcp -d {SERVICES} -j REDIRECT --to-ports 15001");
        self.network.run(&format!("iptables -t nat -A OUTPUT {to_services}"));
    }

    /// What istiod sent at first to a proxy.
    pub(super) fn node(&self, name: &str) -> Node<'_> {
        let folder = self.recordings.join("default").join(name).join("sotw");
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        let mut node = Node { mesh: self, folder, resources: BTreeMap::new() };
        for kind in ["cds", "eds", "lds", "rds"] {
            let is_kind = |stem: &&str| stem.ends_with(kind);
            let mut stems =
                files.iter().filter(|file| file.extension().is_some_and(|it| it == "pb"));
            let stem = stems.find_map(|file| file.file_stem()?.to_str().filter(is_kind)).unwrap();
            node.receive(stem);
        }
        node
    }

    /// How a workload of the mesh speaks TLS; `account` is a namespace and a service account, such as `data/dbclient`.
    pub(super) fn workload(&self, account: &str) -> TlsOptions {
        let (namespace, name) = account.split_once('/').unwrap();
        let uri = format!("spiffe://cluster.local/ns/{namespace}/sa/{name}");
        let identity = self.pki.issue(&format!("{namespace}-{name}"), &Request::default().uri(uri));
        of_the_mesh(self.pki.client(Some(&identity)))
    }

    /// What the sidecars here show to others.
    pub(crate) fn identity(&self) -> Identity {
        let request = Request::default().uri("spiffe://cluster.local/ns/default/sa/sidecar");
        let request = NAMES.iter().fold(request, |request, name| request.dns(*name));
        self.pki.issue("sidecar", &request)
    }
}

/// Adds what sidecars offer each other by ALPN.
pub(super) fn of_the_mesh(mut options: TlsOptions) -> TlsOptions {
    let offered = ["istio-http/1.1", "istio", "http/1.1"];
    Arc::make_mut(&mut options.config).alpn_protocols = offered.map(Into::into).to_vec();
    asking_for("productpage.default", options)
}

/// The same, by the name of another server.
pub(super) fn asking_for(name: &str, mut options: TlsOptions) -> TlsOptions {
    name.clone_into(&mut options.server_name);
    options
}

/// The same, for what is no HTTP, as a sidecar offers it to the server `name`.
pub(super) fn for_bytes(name: &str, mut options: TlsOptions) -> TlsOptions {
    Arc::make_mut(&mut options.config).alpn_protocols = vec!["istio".into()];
    asking_for(name, options)
}

/// A proxy of the mesh, and the resources it was sent.
#[derive(Debug)]
pub(super) struct Node<'a> {
    mesh: &'a Mesh,
    folder: PathBuf,
    /// By type and name.
    resources: BTreeMap<(String, String), Value>,
}

impl Node<'_> {
    /// What istiod sent it later, such as `014-lds`, takes the place of what it sent before.
    pub(super) fn pushed(mut self, response: &str) -> Self {
        self.receive(response);
        self
    }

    fn receive(&mut self, response: &str) {
        let bytes = std::fs::read(self.folder.join(format!("{response}.pb"))).unwrap();
        for resource in &DiscoveryResponse::decode(&*bytes).unwrap().resources {
            let value = xds::json::any_to_json(resource);
            let name = value.get("name").or_else(|| value.get("cluster_name")).unwrap();
            let key = (resource.type_url.clone(), name.as_str().unwrap().to_owned());
            self.resources.insert(key, value);
        }
    }

    /// The only endpoint of a service whose pods were not recorded.
    pub(super) fn endpoint(mut self, cluster: &str, at: SocketAddr) -> Self {
        let address = harness::bootstrap::socket_address(at);
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
        let is_that = |(_, it): &(&(String, String), &mut Value)| it["cluster_name"] == cluster;
        let found = self.resources.iter_mut().find(is_that);
        found.unwrap().1["endpoints"] = endpoints;
        self
    }

    /// Changes every part of every resource.
    pub(super) fn changed(mut self, change: impl Fn(&mut Value)) -> Self {
        self.resources.values_mut().for_each(|resource| walk(resource, &change));
        self
    }

    /// Leaves out the filters of some names.
    pub(super) fn without_filters(self, is_unwanted: impl Fn(&str) -> bool) -> Self {
        self.changed(|part| {
            if let Some(items) = part.as_array_mut() {
                let name = |item: &Value| item.get("name")?.as_str().map(&is_unwanted);
                items.retain(|item| !name(item).unwrap_or(false));
            }
        })
    }

    /// Has no endpoint expect TLS, as the backends here are no sidecars.
    pub(super) fn with_plain_endpoints(self) -> Self {
        self.changed(|part| {
            if let Some(fields) = part.as_object_mut() {
                fields.remove("envoy.transport_socket_match");
            }
        })
    }

    /// Leaves out every listener but that of connections to the workload.
    pub(super) fn only_inbound(mut self) -> Self {
        self.resources
            .retain(|(kind, name), _| !kind.ends_with(".Listener") || name == "virtualInbound");
        self
    }

    /// Starts `program` with all of this. Istio's own filters are nothing to an Envoy that is not Istio's build.
    pub(super) async fn start(mut self, program: Program) -> Proxy {
        // What a plugin is was sent beside it, and is Wasm.
        self = self.without_filters(|name| name.starts_with("extensions.istio.io/"));
        if program.is_envoy() {
            self = self.without_filters(|name| name.starts_with("istio."));
        }
        let mut resources = std::mem::take(&mut self.resources);
        let secrets = Secrets { mesh: self.mesh, identity: self.mesh.identity() };
        resources.values_mut().for_each(|resource| walk(resource, &|part| secrets.inline(part)));
        let mut of_kind = |message: &str| {
            let kind = format!("type.googleapis.com/envoy.config.{message}");
            let taken = resources.extract_if(.., |(it, _), _| *it == kind);
            taken.map(|((_, name), resource)| (name, resource)).collect::<BTreeMap<_, _>>()
        };
        let assignments = of_kind("endpoint.v3.ClusterLoadAssignment");
        let routes = of_kind("route.v3.RouteConfiguration");
        let [mut clusters, mut listeners] =
            ["cluster.v3.Cluster", "listener.v3.Listener"].map(&mut of_kind);
        clusters.values_mut().for_each(|cluster| inline_endpoints(cluster, &assignments));
        for listener in listeners.values_mut() {
            walk(listener, &|part| inline_routes(part, &routes));
        }
        Bootstrap::new()
            .with("static_resources.clusters", plain(clusters))
            .with("static_resources.listeners", plain(listeners))
            .start(program)
            .await
    }
}

/// Resources where they need not say what they are.
fn plain(resources: BTreeMap<String, Value>) -> Vec<Value> {
    let plain = resources.into_values().map(|mut resource| {
        resource.as_object_mut().unwrap().remove("@type");
        resource
    });
    plain.collect()
}

/// Has a cluster the endpoints that were sent for it.
fn inline_endpoints(cluster: &mut Value, assignments: &BTreeMap<String, Value>) {
    let Some(config) = cluster.as_object_mut().unwrap().remove("eds_cluster_config") else {
        return;
    };
    let mut assignment = assignments[config["service_name"].as_str().unwrap()].clone();
    assignment.as_object_mut().unwrap().remove("@type");
    cluster["type"] = "STATIC".into();
    cluster["load_assignment"] = assignment;
}

/// Has a connection manager the routes that were sent for it.
fn inline_routes(part: &mut Value, routes: &BTreeMap<String, Value>) {
    let Some(config) = part.as_object_mut().and_then(|fields| fields.remove("rds")) else { return };
    let mut routes = routes[config["route_config_name"].as_str().unwrap()].clone();
    routes.as_object_mut().unwrap().remove("@type");
    part["route_config"] = routes;
}

/// Changes every part of a value.
pub(crate) fn walk(value: &mut Value, change: &impl Fn(&mut Value)) {
    change(value);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| walk(field, change)),
        _ => {}
    }
}

/// What was not recorded, or is nobody's business.
struct Secrets<'a> {
    mesh: &'a Mesh,
    identity: Identity,
}

impl Secrets<'_> {
    /// Gives one part of a resource the secrets and keys that it asks for.
    fn inline(&self, part: &mut Value) {
        let Some(fields) = part.as_object_mut() else { return };
        if fields.remove("tls_certificate_sds_secret_configs").is_some() {
            fields.insert("tls_certificates".into(), json!([self.identity.certificate()]));
        }
        let root = json!({"filename": self.mesh.pki.root()});
        if let Some(mut combined) = fields.remove("combined_validation_context") {
            let mut context = combined["default_validation_context"].take();
            context["trusted_ca"] = root;
            fields.insert("validation_context".into(), context);
        } else if fields.remove("validation_context_sds_secret_config").is_some() {
            fields.insert("validation_context".into(), json!({"trusted_ca": root}));
        }
        if fields.contains_key("local_jwks") {
            let mesh = self.mesh;
            let issuer = match fields["issuer"].as_str() {
                Some("https://issuer.example.com") => &mesh.first,
                _ => &mesh.second,
            };
            fields.insert("local_jwks".into(), json!({"inline_string": issuer.jwks()}));
        }
    }
}

/// A client at `from` of what is at `to`.
pub(super) fn client(from: &str, tls: Option<&TlsOptions>, to: SocketAddr) -> Client {
    let client = Client::http1(to).coming_from(from);
    match tls {
        Some(options) => client.tls(options.clone()),
        None => client,
    }
}
