//! Every example's files are loaded as they stand, ports aside, and do what their README says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use certs::Request;
use harness::pki::Identity;
use harness::{Backend, Bootstrap, Client, Pki, Program, Proxy};

on_both!(
    canary_splits_and_follows_its_weights,
    ab_by_header_asks_the_request,
    mtls_admits_identities_of_the_mesh,
    ingress_guards_the_edge,
);

#[test]
fn every_example_has_a_readme_and_a_test() {
    let tested =
        ["ab_by_header", "bookinfo", "canary", "ingress", "mtls", "quickstart", "ratelimit"];
    let mut found: Vec<String> = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .inspect(|path| assert!(path.join("README.md").is_file(), "{} has none", path.display()))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, tested);
}

/// An example in a directory of its own, with free ports in place of the documented ones.
struct Example {
    bootstrap: Bootstrap,
    yaml: String,
}

impl Example {
    fn load(name: &str) -> Self {
        let bootstrap = Bootstrap::new();
        let folder = examples().join(name);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                std::fs::copy(&path, bootstrap.dir().join(path.file_name().unwrap())).unwrap();
            }
        }
        let yaml = std::fs::read_to_string(folder.join("envoy.yaml")).unwrap();
        let admin = bootstrap.admin_address();
        Self { bootstrap, yaml }.port(9901, admin)
    }

    /// The listener at the documented port, under `name`.
    fn listener(mut self, documented: u16, name: &str) -> Self {
        let address = self.bootstrap.reserve(name);
        self.port(documented, address)
    }

    /// The endpoint, or listener, that stands for the documented port.
    fn port(mut self, documented: u16, address: impl Into<SocketAddr>) -> Self {
        let (from, to) = (format!("port_value: {documented}}}"), address.into().port());
        assert!(self.yaml.contains(&from), "the example has no port {documented}");
        self.yaml = self.yaml.replace(&from, &format!("port_value: {to}}}"));
        self
    }

    /// Puts `identity` where the README's `--out-dir certs/{name}` does.
    fn certificates(self, name: &str, pki: &Pki, identity: &Identity) -> Self {
        let dir = self.bootstrap.dir().join("certs").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("cert.pem"), identity.chain_pem()).unwrap();
        std::fs::write(dir.join("key.pem"), identity.key_pem()).unwrap();
        std::fs::write(dir.join("ca.pem"), pki.root_pem()).unwrap();
        self
    }

    async fn start(self, program: Program) -> Proxy {
        self.bootstrap.start_with_text(program, &self.yaml).await
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples")
}

async fn canary_splits_and_follows_its_weights(program: Program) {
    let (stable, canary) = (Backend::echo("stable").await, Backend::echo("canary").await);
    let proxy = Example::load("canary")
        .listener(8080, "main")
        .port(9001, &stable)
        .port(9002, &canary)
        .start(program)
        .await;
    for _ in 0..200 {
        let reply = proxy.get("/").send().await;
        assert_eq!(reply.header("x-canary").is_some(), reply.echo().backend() == "canary");
    }
    // 20 are expected; outside of these bounds once in a million runs.
    assert!((1..=45).contains(&canary.count()), "{} of 200", canary.count());
    let routes = std::fs::read_to_string(proxy.file("routes.yaml")).unwrap();
    let all = routes.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 100");
    harness::discovery_files::replace(&proxy.file("routes.yaml"), all);
    harness::eventually::eventually_true("ten canary answers in a row", async || {
        for _ in 0..10 {
            if proxy.get("/").send().await.echo().backend() != "canary" {
                return false;
            }
        }
        true
    })
    .await;
}

async fn ab_by_header_asks_the_request(program: Program) {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let proxy = Example::load("ab_by_header")
        .listener(8080, "main")
        .port(9001, &a)
        .port(9002, &b)
        .start(program)
        .await;
    for (call, version) in [
        (proxy.get("/"), "a"),
        (proxy.get("/").header("x-user-type", "Premium"), "b"),
        (proxy.get("/?version=b"), "b"),
        (proxy.get("/?version=bb"), "a"),
        (proxy.get("/").header("cookie", "theme=dark; group=b"), "b"),
        (proxy.get("/").header("cookie", "subgroup=b"), "a"),
    ] {
        assert_eq!(call.clone().send().await.echo().backend(), version, "{call:?}");
    }
}

async fn mtls_admits_identities_of_the_mesh(program: Program) {
    let app = Backend::echo("app").await;
    let pki = Pki::new();
    let account = |name: &str| format!("spiffe://example.org/ns/shop/sa/{name}");
    let server = pki.issue("server", &Request::default().uri(account("cart")).dns("localhost"));
    let client = pki.issue("client", &Request::default().uri(account("checkout")));
    let outsider =
        pki.issue("outsider", &Request::default().uri("spiffe://example.org/ns/bank/sa/x"));
    let proxy = Example::load("mtls")
        .certificates("server", &pki, &server)
        .listener(8443, "main")
        .port(9001, &app)
        .start(program)
        .await;
    let with = |identity| {
        let mut options = pki.client(identity);
        "localhost".clone_into(&mut options.server_name);
        proxy.client().tls(options).get("/")
    };
    let echo = with(Some(&client)).send().await.echo();
    let said = echo.header("x-forwarded-client-cert").unwrap();
    assert!(said.contains(&format!("URI={}", account("checkout"))), "{said}");
    assert!(with(None).try_send().await.is_err(), "no certificate");
    assert!(with(Some(&outsider)).try_send().await.is_err(), "another namespace");
    assert!(proxy.get("/").try_send().await.is_err(), "plain text");
}

async fn ingress_guards_the_edge(program: Program) {
    let (web, api) = (Backend::echo("web").await, Backend::echo("api").await);
    let pki = Pki::new();
    let names = Request::default().dns("shop.example.org").dns("*.shop.example.org");
    let proxy = Example::load("ingress")
        .certificates("shop", &pki, &pki.issue("shop", &names))
        .listener(8080, "http")
        .listener(8443, "main")
        .port(9001, &web)
        .port(9002, &api)
        .start(program)
        .await;
    let plain = Client::http1(proxy.address("http"));
    let redirect = plain.get("/cart").host("shop.example.org").send().await;
    assert_eq!(redirect.status, 301);
    let location = redirect.header("location");
    assert_eq!(location.as_deref(), Some("https://shop.example.org:8443/cart"));

    let at = |name: &str| {
        let mut options = pki.client(None);
        name.clone_into(&mut options.server_name);
        proxy.client().tls(options)
    };
    let get = |path: &str| at("shop.example.org").get(path).host("shop.example.org");
    let page = get("/").send().await;
    assert_eq!(page.header("strict-transport-security").as_deref(), Some("max-age=31536000"));
    assert_eq!(page.echo().backend(), "web");
    let order = get("/api/orders").send().await.echo();
    assert_eq!((order.backend(), order.path()), ("api", "/orders"));
    assert_eq!(get("/internal/x").send().await.status, 404);
    assert_eq!(get("/x/..%2finternal").send().await.status, 400);
    assert_eq!(get("/x/../internal/x").send().await.status, 404);
    assert_eq!(get("/").header("x_y", "1").send().await.status, 400);
    assert!(at("other.example.org").connect().await.is_err(), "no chain for another name");
}
