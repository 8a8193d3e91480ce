//! The Gateway API's conformance cases: the manifests of each in a folder that our control plane serves, its requests sent
//! through a proxy that the control plane steers.
//!
//! The cases are not part of this repository: see [`suites`](crate::suites).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use harness::backend::answer::Answer;
use harness::eventually::{eventually, eventually_true};
use harness::port::Port;
use harness::{
    Backend, Bootstrap, Client, Cluster, ControlPlane, Program, Proxy, Reply, Value, json,
};

use crate::suites;

on_both!(the_conformance_cases_of_the_gateway_api_pass);

const INFRA: &str = "gateway-conformance-infra";
const MESH: &str = "gateway-conformance-mesh";
/// The services that cases route to, and the names of their ports.
const BACKENDS: [(&str, &str, &[&str]); 9] = [
    (INFRA, "infra-backend-v1", &["first-port", "second-port", "third-port"]),
    (INFRA, "infra-backend-v2", &[""]),
    (INFRA, "infra-backend-v3", &[""]),
    ("gateway-conformance-app-backend", "app-backend-v1", &[""]),
    ("gateway-conformance-app-backend", "app-backend-v2", &[""]),
    ("gateway-conformance-web-backend", "web-backend", &[""]),
    (MESH, "echo", &["http", "http-alt"]),
    (MESH, "echo-v1", &["http", "http-alt"]),
    (MESH, "echo-v2", &["http", "http-alt"]),
];
/// What cases of the mesh are about.
const MESH_MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: gateway-conformance-mesh}
spec: {clusterIP: ADDRESS, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}]}
";
const MESH_CLIENT: &str = "\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: gateway-conformance-mesh}
spec:
  egress:
  - {port: {number: 80, protocol: HTTP, name: http}, bind: SIDECAR, captureMode: NONE, hosts: ['./*']}
  - {port: {number: 8080, protocol: HTTP, name: http-alt}, bind: SIDECAR, captureMode: NONE, hosts: ['./*']}
";
/// Without mTLS, which needs identities.
const PLAIN: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'enableAutoMtls: false'}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
";
/// Cases that are told by the text of their program alone, of which no request and no condition could be read.
const WITHOUT_CASES: [&str; 4] = [
    "HTTPRouteObservedGenerationBump",
    "HTTPRouteRetry",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteRetryWithTimeouts",
];
/// Cases that do not pass, and why.
const FAILING: [(&str, &str); 1] = [(
    "HTTPRouteServiceTypes",
    "its paths and the addresses of its EndpointSlices are made by its program, and are not in the file",
)];

async fn the_conformance_cases_of_the_gateway_api_pass(program: Program) {
    let Some(file) = suites::find("gateway_api_conformance.jsonl") else { return };
    let Some(base) = suites::find("gwapi_base/manifests.yaml") else { return };
    let base = std::fs::read_to_string(base).unwrap();
    let (mut passed, mut wrong) = (0, Vec::new());
    for line in std::fs::read_to_string(&file).unwrap().lines() {
        let case = Case(serde_json::from_str(line).unwrap());
        if case.is_of_mesh() && std::net::TcpListener::bind(sidecar(program)).is_err() {
            eprintln!("SKIPPED: {}: port 80 of 127.3.77.1 cannot be had", case.name());
            continue;
        }
        if WITHOUT_CASES.contains(&case.name()) {
            assert!(case.requests().is_empty() && case.reasons().is_empty(), "{}", case.name());
            continue;
        }
        let told = FAILING.iter().find(|(name, _)| *name == case.name());
        match (case.failure(program, &base).await, told) {
            (None, None) => passed += 1,
            (Some(_), Some(_)) => {}
            (None, Some(_)) => wrong.push(format!("{} passes: do not tell otherwise", case.name())),
            (Some(why), None) => wrong.push(format!("{}: {why}", case.name())),
        }
    }
    println!("{passed} passed; cannot be read: {FAILING:?}, {WITHOUT_CASES:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed > 0, "no case in {}", file.display());
}

/// Where the client of the mesh meets its sidecar.
fn sidecar(program: Program) -> SocketAddr {
    let last = if program == Program::Envoy { 2 } else { 1 };
    ([127, 3, 77, last], 80).into()
}

/// One line of the file.
struct Case(Value);

impl Case {
    fn name(&self) -> &str {
        self.0["id"].as_str().unwrap().rsplit('/').next().unwrap()
    }

    fn is_of_mesh(&self) -> bool {
        self.0["features"].as_array().unwrap().iter().any(|it| it == "Mesh")
    }

    fn requests(&self) -> &[Value] {
        self.0["cases"].as_array().unwrap()
    }

    /// The gateways that requests are sent to.
    fn gateways(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.requests().iter().map(gateway_of).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What is wrong, if anything is.
    async fn failure(&self, program: Program, base: &str) -> Option<String> {
        if self.requests().is_empty() {
            return self.conditions(base).await;
        }
        let scene = Scene::set(self, program, base).await;
        let mut revoked = false;
        for request in self.requests() {
            // Between its two tables, this one takes away what was granted.
            if self.name() == "HTTPRouteReferenceGrant" && request["table"] != 0 && !revoked {
                scene.control.write("case.yaml", &without_grants(&self.text()));
                scene.control.settled(2, scene.proxies.len() as u64).await;
                revoked = true;
            }
            let Some(address) = scene.addresses.get(gateway_of(request)) else { continue };
            if let Some(why) = scene.check(*address, request).await {
                return Some(format!("{request}: {why}"));
            }
        }
        None
    }

    /// The reasons for which its routes are not taken.
    fn reasons(&self) -> Vec<&str> {
        let all = self.0["conditions_mentioned"].as_array().unwrap();
        all.iter().filter_map(|it| it.as_str()?.strip_prefix("RouteReason")).collect()
    }

    /// That the reasons which the case is about are told of.
    async fn conditions(&self, base: &str) -> Option<String> {
        let reasons = self.reasons();
        assert!(!reasons.is_empty(), "{} has nothing to check", self.name());
        let control = ControlPlane::over(self.files(base), &[]);
        let said = eventually("findings", async || {
            let said = control.said();
            reasons.iter().all(|it| said.contains(*it)).then_some(())
        });
        tokio::time::timeout(Duration::from_secs(20), said).await.err()?;
        Some(format!("no {reasons:?} in {}", control.said()))
    }

    /// Its own manifests.
    fn text(&self) -> String {
        let manifests = self.0["manifests"].as_object().unwrap().values();
        let texts: Vec<_> = manifests.map(|it| of_class(it.as_str().unwrap())).collect();
        texts.join("\n---\n")
    }

    fn files(&self, base: &str) -> Vec<(&'static str, String)> {
        vec![
            ("mesh.yaml", PLAIN.to_owned()),
            ("base.yaml", of_class(base)),
            ("case.yaml", self.text()),
        ]
    }
}

fn of_class(text: &str) -> String {
    text.replace("{GATEWAY_CLASS_NAME}", "istio")
}

fn without_grants(text: &str) -> String {
    let documents = text.split("\n---").filter(|it| !it.contains("kind: ReferenceGrant"));
    documents.collect::<Vec<_>>().join("\n---")
}

fn gateway_of(request: &Value) -> &str {
    request["gateway"].as_str().unwrap_or("same-namespace")
}

/// A control plane, the backends, and the proxies that are asked.
struct Scene {
    backends: BTreeMap<String, Backend>,
    addresses: BTreeMap<String, SocketAddr>,
    control: ControlPlane,
    proxies: Vec<(Port, Proxy)>,
}

impl Scene {
    async fn set(case: &Case, program: Program, base: &str) -> Self {
        let mut files = case.files(base);
        let mut backends = BTreeMap::new();
        let mut slices = String::new();
        for (namespace, name, ports) in BACKENDS {
            let backend = Backend::scripted(&format!("{namespace}/{name}"), |request| {
                let delay = request.path.split_once("delay=").map_or("0s", |(_, it)| it);
                let seconds = delay.trim_end_matches('s').parse().unwrap_or(0);
                Answer::echo().after(Duration::from_secs(seconds))
            })
            .await;
            slices += &slice(namespace, name, "127.0.0.1", backend.address().port(), ports);
            backends.insert(format!("{namespace}/{name}"), backend);
        }
        let places: Vec<_> = if case.is_of_mesh() {
            for (number, name) in ["echo", "echo-v1", "echo-v2"].into_iter().enumerate() {
                let address = format!("10.96.7.{}", number + 1);
                slices += &MESH_MANIFESTS.replace("NAME", name).replace("ADDRESS", &address);
                slices += "---\n";
            }
            slices += &MESH_CLIENT.replace("SIDECAR", &sidecar(program).ip().to_string());
            Vec::new()
        } else {
            case.gateways().into_iter().map(|name| (name, Port::reserve())).collect()
        };
        for (number, (gateway, port)) in places.iter().enumerate() {
            slices += &service_of(gateway, number, port.address().port());
        }
        files.push(("scene.yaml", slices));
        let control = ControlPlane::over(files, &[]);
        let mut addresses = BTreeMap::new();
        let mut proxies = Vec::new();
        if case.is_of_mesh() {
            let proxy = proxy(program, &control, "sidecar", 0, ("client", MESH)).await;
            addresses.insert("same-namespace".to_owned(), sidecar(program));
            proxies.push((Port::reserve(), proxy));
        }
        for (number, (gateway, port)) in places.into_iter().enumerate() {
            let proxy = proxy(program, &control, "router", number, (gateway, INFRA)).await;
            addresses.insert(gateway.to_owned(), port.address());
            proxies.push((port, proxy));
        }
        control.settled(1, proxies.len() as u64).await;
        for address in addresses.values() {
            eventually_true("the proxy to listen", async || {
                Client::http1(*address).connect().await.is_ok()
            })
            .await;
        }
        Self { backends, addresses, control, proxies }
    }

    async fn check(&self, address: SocketAddr, case: &Value) -> Option<String> {
        let (request, expected) = (&case["request"], &case["expect"]);
        let Some(path) = request["path"].as_str() else {
            return Some("its path is not in the file".to_owned());
        };
        let mut call =
            Client::http1(address).call(request["method"].as_str().unwrap().parse().unwrap(), path);
        call = call.host(request["host"].as_str().unwrap_or("echo"));
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            call = call.header(name, value.as_str().unwrap());
        }
        let reply = call.send().await;
        let allowed = expected["status"].as_array().unwrap();
        if !allowed.iter().any(|it| *it == reply.status) {
            return Some(format!("status {}: {}", reply.status, reply.text()));
        }
        if let Some(name) = expected["backend"].as_str() {
            let wanted = format!("{}/{name}", expected["backend_namespace"].as_str().unwrap());
            if reply.echo().backend() != wanted {
                return Some(format!("answered by {}", reply.echo().backend()));
            }
        }
        if !expected["redirect"].is_null() {
            return redirect(&reply, request, &expected["redirect"]);
        }
        for mirror in expected["mirrored_to"].as_array().into_iter().flatten() {
            let reference = &mirror["BackendRef"];
            let name = [&reference["Namespace"], &reference["Name"]].map(|it| it.as_str().unwrap());
            let backend = &self.backends[&name.join("/")];
            eventually_true("the copy", async || backend.calls().iter().any(|it| it.path == path))
                .await;
        }
        at_backend(&reply, &expected["backend_request"])
    }
}

/// What the backend was asked.
fn at_backend(reply: &Reply, expected: &Value) -> Option<String> {
    if expected.is_null() {
        return None;
    }
    let echo = reply.echo();
    for (key, seen) in [("Path", echo.path()), ("Host", echo.host())] {
        if expected[key].as_str().is_some_and(|it| it != seen) {
            return Some(format!("{key} is {seen}"));
        }
    }
    for (name, wanted) in expected["Headers"].as_object().into_iter().flatten() {
        let values = reply.json()["headers"].as_array().unwrap().clone();
        let of_name = values.iter().filter(|it| it[0].as_str().unwrap().eq_ignore_ascii_case(name));
        let seen: Vec<_> = of_name.map(|it| it[1].as_str().unwrap().to_owned()).collect();
        if wanted.as_str().unwrap() != seen.join(",") {
            return Some(format!("{name} is {seen:?}"));
        }
    }
    let absent = expected["AbsentHeaders"].as_array().into_iter().flatten();
    let there = absent.filter_map(Value::as_str).find(|it| echo.header(it).is_some());
    there.map(|it| format!("{it} is there"))
}

/// Where the client is sent; what a case does not say is as in its request.
fn redirect(reply: &Reply, request: &Value, expected: &Value) -> Option<String> {
    let location: http::Uri = reply.header("location")?.parse().unwrap();
    let host = request["host"].as_str().unwrap_or("echo");
    let (path, scheme) = (request["path"].as_str().unwrap(), location.scheme_str()?);
    let seen_port = location.port_u16().filter(|port| (scheme, *port) != ("http", 80));
    let seen_port = seen_port.filter(|port| (scheme, *port) != ("https", 443));
    let wanted =
        |key: &str, otherwise: &str| expected[key].as_str().unwrap_or(otherwise).to_owned();
    let is_right = scheme == wanted("scheme", "http")
        && location.host() == Some(&wanted("host", host))
        && seen_port.map(|it| it.to_string()).unwrap_or_default() == wanted("port", "")
        && location.path() == wanted("path", path);
    (!is_right).then(|| format!("it leads to {location}"))
}

fn slice(namespace: &str, name: &str, address: &str, port: u16, ports: &[&str]) -> String {
    let ports: Vec<_> = ports.iter().map(|it| json!({"name": it, "port": port})).collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-here"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4", "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    format!("{slice}\n---\n")
}

/// The service of a gateway, whose workload listens at a port of its own for each.
fn service_of(gateway: &str, number: usize, port: u16) -> String {
    let name = format!("{gateway}-istio");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": INFRA},
        "spec": {"clusterIP": format!("10.96.8.{number}"), "ports": [{"name": "http", "port": 80, "targetPort": port}]},
    });
    let address = format!("10.0.1.{number}");
    format!("{service}\n---\n{}", slice(INFRA, &name, &address, port, &["http"]))
}

async fn proxy(
    program: Program,
    control: &ControlPlane,
    role: &str,
    number: usize,
    (name, namespace): (&str, &str),
) -> Proxy {
    let ads = || json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let id = format!("{role}~10.0.1.{number}~{name}.{namespace}~{namespace}.svc.cluster.local");
    let labels = json!({"gateway.networking.k8s.io/gateway-name": name});
    Bootstrap::new()
        .cluster(Cluster::new("xds-grpc").http2().endpoint(control))
        .with("node", json!({"id": id, "cluster": name, "metadata": {"LABELS": labels}}))
        .with(
            "dynamic_resources",
            json!({
                "ads_config": {
                    "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
                "cds_config": ads(), "lds_config": ads(),
            }),
        )
        .start(program)
        .await
}
