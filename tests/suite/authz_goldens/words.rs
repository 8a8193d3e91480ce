//! What requests are made of: the words of a golden's policies, each hit and nearly hit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use harness::{Value, json};
use rustls::pki_types::ServerName;

/// The conditions of a golden, and the words in them.
#[derive(Debug, Default)]
pub(super) struct Words {
    permissions: Vec<Value>,
    principals: Vec<Value>,
    methods: BTreeSet<String>,
    paths: BTreeSet<String>,
    hosts: BTreeSet<String>,
    headers: BTreeMap<String, BTreeSet<String>>,
    /// Of tokens, by their paths.
    claims: BTreeMap<Vec<String>, BTreeSet<String>>,
    names: BTreeSet<String>,
    server_names: BTreeSet<String>,
    destinations: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u64>,
    remotes: BTreeSet<Ipv4Addr>,
}

/// How a client connects.
#[derive(Debug)]
pub(super) struct Connection {
    /// The URI in its certificate; without one it has none.
    pub(super) principal: Option<String>,
    /// Whom it asks for.
    pub(super) server_name: Option<String>,
    from: Ipv4Addr,
    to: (Ipv4Addr, u64),
}

/// What a client asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) headers: Vec<(String, String)>,
    /// Those of its token, if it has one.
    pub(super) claims: Option<Value>,
}

impl Connection {
    /// What a load balancer says of it.
    pub(super) fn proxy_header(&self) -> String {
        let (from, (to, port)) = (self.from, self.to);
        format!("PROXY TCP4 {from} {to} 1234 {port}\r\n")
    }
}

impl Words {
    /// The conditions and words of these filters.
    pub(super) fn of(filters: &[Value]) -> Self {
        let mut words = Self::default();
        for filter in filters {
            for rules in ["rules", "shadow_rules"] {
                let policies = filter["typed_config"][rules]["policies"].as_object();
                for policy in policies.into_iter().flat_map(|policies| policies.values()) {
                    leaves(&policy["permissions"], &mut words.permissions);
                    leaves(&policy["principals"], &mut words.principals);
                }
            }
        }
        for leaf in words.permissions.clone().iter().chain(&words.principals.clone()) {
            words.note(leaf);
        }
        words.complete();
        words
    }

    /// A policy for each of the conditions.
    pub(super) fn policies(&self) -> impl Iterator<Item = Value> {
        let any = || json!([{"any": true}]);
        let may = move |leaf| json!({"permissions": [leaf], "principals": any()});
        let who = move |leaf| json!({"permissions": any(), "principals": [leaf]});
        self.permissions.iter().map(may).chain(self.principals.iter().map(who))
    }

    pub(super) fn server_names(&self) -> impl Iterator<Item = &String> {
        self.server_names.iter()
    }

    pub(super) fn connection(&self, random: &mut fastrand::Rng) -> Connection {
        Connection {
            principal: maybe(random, &self.names),
            server_name: maybe(random, &self.server_names),
            from: *one(random, &self.remotes),
            to: (*one(random, &self.destinations), *one(random, &self.ports)),
        }
    }

    pub(super) fn requests(&self, random: &mut fastrand::Rng, count: usize) -> Vec<Request> {
        (0..count).map(|_| self.request(random)).collect()
    }

    fn request(&self, random: &mut fastrand::Rng) -> Request {
        let mut headers = Vec::new();
        for (name, values) in &self.headers {
            for _ in 0..random.usize(0..3) {
                headers.push((name.to_lowercase(), one(random, values).clone()));
            }
        }
        if random.bool() {
            headers.push(("x-forwarded-for".to_owned(), one(random, &self.remotes).to_string()));
        }
        Request {
            method: one(random, &self.methods).clone(),
            path: one(random, &self.paths).clone(),
            host: one(random, &self.hosts).clone(),
            headers,
            claims: random.bool().then(|| self.token(random)),
        }
    }

    /// The claims of a token: each is there or not, a text or a list of them.
    fn token(&self, random: &mut fastrand::Rng) -> Value {
        let mut claims = json!({});
        for (path, words) in &self.claims {
            let word = |random: &mut fastrand::Rng| Value::from(one(random, words).as_str());
            // These are texts, or the token is none.
            let is_text = matches!(&*path.join("."), "iss" | "sub");
            let value = match random.u8(0..5) {
                0 => continue,
                1 | 2 if !is_text => json!([word(random), word(random)]),
                _ => word(random),
            };
            let mut place = &mut claims;
            for key in path {
                if !place.is_object() {
                    *place = json!({});
                }
                place = &mut place[key];
            }
            *place = value;
        }
        claims
    }

    fn note(&mut self, leaf: &Value) {
        let (kind, condition) = leaf.as_object().unwrap().iter().next().unwrap();
        match &**kind {
            "header" => {
                let words = texts(&condition["string_match"]);
                match condition["name"].as_str().unwrap() {
                    ":method" => self.methods.extend(words),
                    ":authority" => self.hosts.extend(words),
                    name => self.headers.entry(name.to_owned()).or_default().extend(words),
                }
            }
            "url_path" => {
                let paths = texts(&condition["path"]).into_iter();
                let paths: Vec<_> =
                    paths.map(|it| format!("/{}", it.trim_start_matches('/'))).collect();
                self.paths.extend(paths.iter().map(|path| format!("{path}?query=/exact")));
                self.paths.extend(paths);
            }
            "uri_template" => {
                let template = condition["typed_config"]["path_template"].as_str().unwrap();
                for (long, short) in [("a/b", "c"), ("", "d.e"), ("a", "")] {
                    self.paths.insert(template.replace("**", long).replace('*', short));
                }
            }
            "requested_server_name" => self.server_names.extend(texts(condition)),
            "authenticated" => self.names.extend(texts(&condition["principal_name"])),
            "destination_ip" => self.destinations.extend(addresses(condition)),
            "destination_port" => {
                let port = condition.as_u64().unwrap();
                self.ports.extend([port, port + 1]);
            }
            "remote_ip" | "direct_remote_ip" => self.remotes.extend(addresses(condition)),
            "metadata" if condition["filter"] == "envoy.filters.http.jwt_authn" => {
                let keys = condition["path"].as_array().unwrap().iter().skip(1);
                let path = keys.map(|it| it["key"].as_str().unwrap().to_owned()).collect();
                self.claims.entry(path).or_default().extend(values(&condition["value"]));
            }
            // Nobody here says anything that other metadata could hold.
            "any" | "metadata" => {}
            other => panic!("a condition of another kind: {other}"),
        }
    }

    /// Adds what every golden is asked, and leaves out what cannot be said at all.
    fn complete(&mut self) {
        self.methods.extend(["GET", "POST"].map(ToOwned::to_owned));
        self.methods.retain(|it| it.parse::<http::Method>().is_ok());
        self.paths.extend(["/", "/other"].map(ToOwned::to_owned));
        self.paths.retain(|it| it.starts_with('/') && it.parse::<http::Uri>().is_ok());
        self.hosts.insert("other.example".to_owned());
        self.hosts.retain(|it| it.parse::<http::uri::Authority>().is_ok());
        self.names.insert("spiffe://other/ns/other/sa/other".to_owned());
        self.server_names
            .retain(|it| matches!(ServerName::try_from(&**it), Ok(ServerName::DnsName(_))));
        self.server_names.insert("server.test".to_owned());
        self.destinations.insert(Ipv4Addr::new(127, 0, 0, 1));
        self.remotes.insert(Ipv4Addr::new(127, 0, 0, 9));
        self.ports.insert(443);
    }
}

/// The conditions that `list` and what it holds are made of.
fn leaves(list: &Value, out: &mut Vec<Value>) {
    for condition in list.as_array().unwrap() {
        let (kind, inside) = condition.as_object().unwrap().iter().next().unwrap();
        match &**kind {
            "and_rules" | "or_rules" => leaves(&inside["rules"], out),
            "and_ids" | "or_ids" => leaves(&inside["ids"], out),
            "not_rule" | "not_id" => leaves(&json!([inside]), out),
            _ if out.contains(condition) => {}
            _ => out.push(condition.clone()),
        }
    }
}

fn one<'a, T>(random: &mut fastrand::Rng, words: &'a BTreeSet<T>) -> &'a T {
    words.iter().nth(random.usize(0..words.len())).unwrap()
}

/// One of them, or now and then none.
fn maybe(random: &mut fastrand::Rng, words: &BTreeSet<String>) -> Option<String> {
    (random.u8(0..8) > 0).then(|| one(random, words).clone())
}

/// Texts that a matcher takes, and some that it nearly does.
fn texts(matcher: &Value) -> Vec<String> {
    let Some((kind, pattern)) =
        matcher.as_object().and_then(|it| it.iter().find(|(kind, _)| *kind != "ignore_case"))
    else {
        return vec!["anything".to_owned()];
    };
    let text = || pattern.as_str().unwrap();
    match &**kind {
        "exact" => vec![text().to_owned(), format!("{}x", text()), text().to_uppercase()],
        "prefix" => vec![format!("{}x", text()), text().to_owned(), shortened(text())],
        "suffix" => vec![format!("x{}", text()), format!("{}x", text()), text().to_uppercase()],
        "safe_regex" => {
            let regex = pattern["regex"].as_str().unwrap();
            let with = |optional: &str, any: &str| {
                let text = regex.replace("(.+/|)", optional).replace("(/.+)?", "");
                text.replace(".+", any).replace(".*", any).replace('\\', "")
            };
            vec![
                with("", "x"),
                with("t/", "y/z"),
                format!("{}/", with("", "x")),
                shortened(&with("", "x")),
            ]
        }
        other => panic!("a matcher of another kind: {other}"),
    }
}

/// The texts of a matcher of values.
fn values(matcher: &Value) -> Vec<String> {
    let (kind, inside) = matcher.as_object().unwrap().iter().next().unwrap();
    match &**kind {
        "string_match" => texts(inside),
        "list_match" => values(&inside["one_of"]),
        "or_match" => {
            inside["value_matchers"].as_array().unwrap().iter().flat_map(values).collect()
        }
        other => panic!("a matcher of another kind of value: {other}"),
    }
}

fn shortened(text: &str) -> String {
    text.get(..text.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// The first and the last address of a block, and one on each side of it.
fn addresses(block: &Value) -> [Ipv4Addr; 4] {
    let first: Ipv4Addr = block["address_prefix"].as_str().unwrap().parse().unwrap();
    let length = block["prefix_len"].as_u64().unwrap();
    let first = u32::from(first);
    let last = first + ((1_u64 << (32 - length)) - 1) as u32;
    [first, last, first - 1, last + 1].map(Ipv4Addr::from)
}
