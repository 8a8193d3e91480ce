//! Istio's goldens of its authorization policies: both programs give the same verdicts.
//!
//! The requests are made of the policies' own words, each hit and nearly hit. Beside each policy as a whole, every one of its
//! conditions is asked by itself, as a shadow rule whose verdicts are counted: most policies of the goldens say so
//! much at once that no request meets them.
//!
//! The goldens are not part of this repository: they are looked for in `SUITES_DIR`, else beside the workspace.

mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use certs::Request;
use harness::bootstrap::typed;
use harness::client::Call;
use harness::client::tls::TlsOptions;
use harness::pki::{Identity, SERVER_NAME};
use harness::{
    AuthzServer, Bootstrap, Client, Cluster, Filters, Http, Issuer, Listener, Pki, Program, Proxy,
    Route, Tcp, TcpBackend, Value, json,
};
use tonic::Status;
use words::{Connection, Words};
use xds::envoy::config::core::v3::Address;
use xds::envoy::config::core::v3::address::Address as Kind;
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use xds::yaml::Document;

const HTTP_FILTER: &str = "envoy.filters.http.rbac";
const NETWORK_FILTER: &str = "envoy.filters.network.rbac";
/// Goldens of CUSTOM actions ask this service beside their rules.
const ASKING_FILTER: &str = "envoy.filters.network.ext_authz";
const SERVICE: &str = "outbound|9000||my-custom-ext-authz.foo.svc.cluster.local";

#[tokio::test]
async fn both_programs_give_the_same_verdicts() {
    let Some(goldens) = goldens() else { return };
    if !Program::Envoy.is_installed() {
        return;
    }
    let pki = Pki::new();
    let issuer = Issuer::new("https://issuer.test");
    let app = TcpBackend::echo().await;
    let service = AuthzServer::authorizing(|request| Some(decided(request))).await;
    let server = server(&pki, &goldens);
    let parties = Parties { server, pki: &pki, issuer: &issuer, app: &app, service: &service };
    let ours = start(Program::Outrigger, &goldens, &parties).await;
    let envoys = start(Program::Envoy, &goldens, &parties).await;
    let (connections, requests) = match std::env::var("LOAD").is_ok_and(|load| load == "full") {
        true => (250, 5),
        false => (12, 5),
    };
    for golden in &goldens {
        let mut random = fastrand::Rng::with_seed(1);
        for number in 0..connections {
            let connection = golden.words.connection(&mut random);
            let requests = golden.words.requests(&mut random, requests);
            let tokens: Vec<_> = requests.iter().map(|it| token(&issuer, it)).collect();
            let name = &format!("{number}");
            let options = client(&pki, &connection, name);
            let ask = async |proxy: &Proxy| {
                let client = Client::http2(proxy.address(&golden.name));
                let client = client.tls(options.clone()).saying_first(&connection.proxy_header());
                golden.verdicts(client, &requests, &tokens).await
            };
            let (ours, envoys) = tokio::join!(ask(&ours), ask(&envoys));
            assert_eq!(ours, envoys, "{}: {connection:?} {requests:?}", golden.id);
        }
    }
    let (ours, envoys) = (counts(&ours).await, counts(&envoys).await);
    let differing: Vec<_> =
        ours.iter().filter(|(name, count)| envoys.get(*name) != Some(count)).collect();
    assert!(differing.is_empty(), "ours {differing:?}");
    assert_eq!(ours.len(), envoys.len());
    let is_met =
        |(name, count): &(&String, &String)| name.ends_with("shadow_allowed") && *count != "0";
    let met = ours.iter().filter(is_met).count();
    assert!(met > 50, "only {met} conditions were ever met");
    assert_eq!(service.count(), 2 * connections, "each program asks about each connection");
}

/// Whom the programs know.
struct Parties<'a> {
    pki: &'a Pki,
    server: Identity,
    issuer: &'a Issuer,
    app: &'a TcpBackend,
    service: &'a AuthzServer,
}

/// Somebody with an even address may pass.
fn decided(request: &CheckRequest) -> Result<CheckResponse, Status> {
    let source = request.attributes.as_ref().and_then(|it| it.source.as_ref());
    let address = source.and_then(|it| it.address.as_ref());
    let Some(Address { address: Some(Kind::SocketAddress(socket)) }) = address else {
        return Err(Status::invalid_argument("no source"));
    };
    let address: std::net::Ipv4Addr = socket.address.parse().unwrap();
    match address.octets()[3] % 2 {
        0 => Ok(CheckResponse::default()),
        _ => Ok(Document::new("answer", "status: {code: 7}").read().unwrap()),
    }
}

/// The token of `request`, if it has one.
fn token(issuer: &Issuer, request: &words::Request) -> Option<String> {
    request.claims.clone().map(|claims| issuer.token(claims))
}

/// A golden, in a listener of its own.
struct Golden {
    id: String,
    /// Of its listener.
    name: String,
    is_http: bool,
    filters: Vec<Value>,
    words: Words,
}

impl Golden {
    fn new(golden: &Value, number: usize) -> Self {
        let is_http = golden["protocol"] == "http";
        let texts =
            golden["golden_filters"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        let mut filters: Vec<Value> = texts.map(|text| parsed(text, is_http)).collect();
        for filter in &mut filters {
            if filter["name"] == ASKING_FILTER {
                // Milliseconds are too short for a busy machine.
                filter["typed_config"]["grpc_service"]["timeout"] = "10s".into();
            }
        }
        let words = Words::of(&filters);
        let id = golden["id"].as_str().unwrap().to_owned();
        Self { id, name: format!("g{number}"), is_http, filters, words }
    }

    /// Its filters, behind one for each of their conditions.
    fn filters(&self) -> Vec<Value> {
        let name = if self.is_http { HTTP_FILTER } else { NETWORK_FILTER };
        let message = match self.is_http {
            true => "envoy.extensions.filters.http.rbac.v3.RBAC",
            false => "envoy.extensions.filters.network.rbac.v3.RBAC",
        };
        let alone = self.words.policies().enumerate().map(|(number, policy)| {
            let mut config = json!({
                "shadow_rules": {"policies": {"p": policy}},
                "shadow_rules_stat_prefix": format!("condition{number}_"),
            });
            if !self.is_http {
                config["stat_prefix"] = self.name.as_str().into();
            }
            json!({"name": name, "typed_config": typed(message, config)})
        });
        alone.chain(self.filters.iter().cloned()).collect()
    }

    fn listener(&self, tls: Value, issuer: &Issuer) -> Listener {
        let filters: Filters = if self.is_http {
            let tokens = jwt_authn(issuer);
            let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
            let router = json!({"name": "envoy.filters.http.router", "typed_config": router});
            let filters: Vec<Value> =
                [tokens].into_iter().chain(self.filters()).chain([router]).collect();
            let http = Http::routing([Route::prefix("/").direct(200, "ok")]);
            http.with("stat_prefix", self.name.as_str()).with("http_filters", filters).into()
        } else {
            Filters::from(Tcp::to("app")).behind(self.filters())
        };
        Listener::new(&self.name, filters)
            .listener_filter("proxy_protocol", "ProxyProtocol", json!({}))
            .tls_inspector()
            .tls(tls)
    }

    /// What becomes of each of the requests, or of a connection.
    async fn verdicts(
        &self,
        client: Client,
        requests: &[words::Request],
        tokens: &[Option<String>],
    ) -> Vec<String> {
        if !self.is_http {
            let passes = client.echoes(b"hello").await;
            return vec![if passes { "passes" } else { "closed" }.to_owned()];
        }
        let mut connection = client.connect().await.unwrap();
        let mut verdicts = Vec::new();
        for (request, token) in requests.iter().zip(tokens) {
            let reply = connection.send(call(&client, request, token.as_deref())).await;
            verdicts.push(reply.map_or_else(|_| "reset".to_owned(), |it| it.status.to_string()));
        }
        verdicts
    }
}

/// What Istio makes of a request authentication: tokens may be missing, and leave their claims in metadata.
fn jwt_authn(issuer: &Issuer) -> Value {
    let provider = json!({
        "local_jwks": {"inline_string": issuer.jwks()},
        "payload_in_metadata": "payload",
    });
    let requirements = json!([{"provider_name": "issuer"}, {"allow_missing": {}}]);
    let config = json!({
        "providers": {"issuer": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": requirements}}}],
    });
    let name = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    json!({"name": "envoy.filters.http.jwt_authn", "typed_config": typed(name, config)})
}

fn call(client: &Client, request: &words::Request, token: Option<&str>) -> Call {
    let words::Request { method, path, host, headers, claims: _ } = request;
    let call = client.call(method.parse().unwrap(), path).host(host);
    let call = match token {
        Some(token) => call.header("authorization", &format!("Bearer {token}")),
        None => call,
    };
    headers.iter().fold(call, |call, (name, value)| call.header(name, value))
}

/// A filter as JSON with the names of Envoy's fields.
fn parsed(text: &str, is_http: bool) -> Value {
    let document = Document::new("golden", text);
    match is_http {
        true => xds::json::to_json(&document.read::<HttpFilter>().unwrap()),
        false => xds::json::to_json(&document.read::<Filter>().unwrap()),
    }
}

/// Each golden that has rules, once.
fn goldens() -> Option<Vec<Golden>> {
    let file = crate::suites::find("istio_authz_golden.jsonl")?;
    let lines = std::fs::read_to_string(&file).unwrap();
    let mut goldens: Vec<Golden> = Vec::new();
    for line in lines.lines() {
        let golden = Golden::new(&serde_json::from_str(line).unwrap(), goldens.len());
        let is_known = |known: &Golden| known.filters == golden.filters;
        if !golden.filters.is_empty() && !goldens.iter().any(is_known) {
            goldens.push(golden);
        }
    }
    assert!(goldens.len() > 5, "{} goldens in {}", goldens.len(), file.display());
    Some(goldens)
}

/// A server that goes by every name that a client may ask for.
fn server(pki: &Pki, goldens: &[Golden]) -> Identity {
    let names = goldens.iter().flat_map(|golden| golden.words.server_names());
    let request =
        names.fold(Request::default().dns(SERVER_NAME), |request, name| request.dns(name));
    pki.issue("server", &request)
}

async fn start(program: Program, goldens: &[Golden], parties: &Parties<'_>) -> Proxy {
    let mut tls = parties.pki.mutual(&parties.server);
    tls["require_client_certificate"] = false.into();
    let listeners = goldens.iter().map(|golden| golden.listener(tls.clone(), parties.issuer));
    let bootstrap = listeners.fold(Bootstrap::new(), Bootstrap::listener);
    let service = Cluster::new(SERVICE).http2().endpoint(parties.service);
    let bootstrap = bootstrap.cluster(Cluster::new("app").endpoint(parties.app)).cluster(service);
    bootstrap.start(program).await
}

/// How a client speaks TLS on `connection`; its certificate's files are named after `name`.
fn client(pki: &Pki, connection: &Connection, name: &str) -> TlsOptions {
    let principal = connection.principal.as_ref();
    let identity = principal.map(|uri| pki.issue(name, &Request::default().uri(uri)));
    let mut options = pki.client(identity.as_ref());
    match &connection.server_name {
        Some(name) => name.clone_into(&mut options.server_name),
        None => Arc::make_mut(&mut options.config).enable_sni = false,
    }
    options
}

/// Everything that is counted of policies.
async fn counts(proxy: &Proxy) -> BTreeMap<String, String> {
    let mut counts = BTreeMap::new();
    for filter in ["rbac", "ext_authz"] {
        let text = proxy.admin().get(&format!("/stats?filter={filter}")).send().await.text();
        let found = text.lines().filter_map(|line| line.split_once(": "));
        counts.extend(found.map(|(name, count)| (name.to_owned(), count.to_owned())));
    }
    counts
}
