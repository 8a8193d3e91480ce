//! The table as a whole, held against a scan of every route in configuration order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::{Circumstances, Found, RouteTable, TlsPresence, matcher};
use crate::config::format::{Facts, Operator};
use crate::config::header::HeaderMutations;
use crate::config::matcher::{
    Fraction, HeaderMatcher, HeaderRef, HeaderRule, QueryParameterMatcher, Regex, RequestHead,
    StringMatcher, StringPattern,
};
use crate::config::metadata::{Metadata, MetadataMatcher, ValueMatcher};
use crate::config::route::{
    Action, ClusterSpecifier, ClusterTarget, DirectResponse, HostRewrite, PathMatch, PathRewrite,
    Priority, RequireTls, Route, RouteAction, RouteConfig, RouteMatch, TlsContextMatch,
    VirtualCluster, VirtualHost, WeightedCluster,
};

/// Conditions on nothing but the path.
pub(super) fn on_path(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        headers: Vec::new(),
        query_parameters: Vec::new(),
        grpc: false,
        runtime_fraction: None,
        tls: None,
        dynamic_metadata: Vec::new(),
    }
}

pub(super) fn exact(path: &str) -> PathMatch {
    PathMatch::Exact { value: path.into(), case_sensitive: true }
}

pub(super) fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix { value: path.into(), case_sensitive: true }
}

pub(super) fn separated(path: &str) -> PathMatch {
    PathMatch::SeparatedPrefix { value: path.into(), case_sensitive: true }
}

pub(super) fn regex(source: &str) -> PathMatch {
    PathMatch::Regex(Regex::new(source).unwrap())
}

fn folding(path: PathMatch) -> PathMatch {
    match path {
        PathMatch::Exact { value, .. } => PathMatch::Exact { value, case_sensitive: false },
        PathMatch::Prefix { value, .. } => PathMatch::Prefix { value, case_sensitive: false },
        PathMatch::SeparatedPrefix { value, .. } => {
            PathMatch::SeparatedPrefix { value, case_sensitive: false }
        }
        other => other,
    }
}

pub(super) fn header(name: &str, value: &str) -> HeaderMatcher {
    HeaderMatcher {
        header: HeaderRef::parse(name).unwrap(),
        rule: HeaderRule::Value(StringMatcher::new(StringPattern::Exact(value.into()), false)),
        invert: false,
        missing_as_empty: false,
    }
}

pub(super) fn route(matcher: RouteMatch) -> Route {
    let response = DirectResponse { status: StatusCode::OK, body: Bytes::new() };
    Route {
        filters: Vec::new(),
        name: "".into(),
        matcher,
        action: Action::DirectResponse(response),
        request_headers: HeaderMutations::default(),
        response_headers: HeaderMutations::default(),
        decorator: None,
        tracing: None,
        stat_prefix: None,
        request_body_buffer_limit: None,
        metadata: None,
    }
}

/// An action that forwards to `cluster` and leaves everything else at Envoy's defaults.
pub(crate) fn forward(cluster: ClusterSpecifier) -> RouteAction {
    RouteAction {
        cluster,
        cluster_not_found_status: StatusCode::SERVICE_UNAVAILABLE,
        path_rewrite: PathRewrite::None,
        host_rewrite: HostRewrite::None,
        append_x_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: None,
        stream_duration: None,
        grpc_timeout: None,
        retry_policy: None,
        internal_redirect: None,
        mirrors: Vec::new(),
        priority: Priority::Default,
        hash_policies: Vec::new(),
        metadata_match: None,
        upgrades: Vec::new(),
        rate_limits: Vec::new(),
        include_vh_rate_limits: false,
    }
}

pub(super) fn weighted(name: &str, weight: u32) -> WeightedCluster {
    WeightedCluster {
        filters: Vec::new(),
        target: ClusterTarget::Name(name.into()),
        weight,
        request_headers: HeaderMutations::default(),
        response_headers: HeaderMutations::default(),
        host_rewrite: None,
        metadata_match: None,
    }
}

pub(super) fn one_host(routes: impl IntoIterator<Item = RouteMatch>) -> RouteConfig {
    let host = VirtualHost {
        domains: vec!["*".to_owned()],
        routes: routes.into_iter().map(|matcher| Arc::new(route(matcher))).collect(),
        ..VirtualHost::default()
    };
    RouteConfig { virtual_hosts: vec![host], ..RouteConfig::default() }
}

pub(super) fn compile(config: RouteConfig) -> RouteTable {
    RouteTable::compile(Arc::new(config)).unwrap()
}

pub(super) fn get<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "a.com",
        path_and_query: path,
        headers,
    }
}

/// Facts that know the path and what `%REQ(:authority)%` and `%RESP(x-upstream)%` are, and nothing else.
pub(super) struct FewFacts;

impl Facts for FewFacts {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let text = match operator {
            Operator::Path { .. } => "/facts?q",
            Operator::Req(choice) if choice.first == HeaderRef::Authority => "facts.host",
            Operator::Resp(_) => "from facts",
            _ => return false,
        };
        out.extend_from_slice(text.as_bytes());
        true
    }
}

fn number(table: &RouteTable, head: &RequestHead<'_>) -> Option<u32> {
    table.find(head, 0, Circumstances::default()).and_then(|found| found.route)
}

#[test]
fn the_first_match_wins_whatever_its_kind() {
    let table = compile(one_host(
        [
            regex("/api/[0-9]+"),
            exact("/api/7"),
            prefix("/api/v"),
            folding(exact("/API/V1")),
            separated("/api"),
            exact("/api/v1/x"),
            regex(".*/late"),
            prefix("/"),
        ]
        .map(on_path),
    ));
    let headers = HeaderMap::new();
    for (path, expected) in [
        ("/api/7", Some(0)),
        ("/api/7?x=/late", Some(0)),
        ("/api/v1", Some(2)),
        ("/Api/v1", Some(3)),
        ("/api/x", Some(4)),
        ("/api", Some(4)),
        ("/apis", Some(7)),
        ("/x/late", Some(6)),
        ("/x/late#fragment", Some(6)),
        ("x", None),
    ] {
        assert_eq!(number(&table, &get(path, &headers)), expected, "{path}");
    }
}

fn has_metadata(invert: bool) -> MetadataMatcher {
    let (namespace, path) = ("filter".into(), vec!["key".into()]);
    MetadataMatcher { namespace, path, value: ValueMatcher::Present(true), invert }
}

#[test]
fn metadata_that_a_filter_has_set_counts() {
    let mut with_metadata = on_path(prefix("/"));
    with_metadata.dynamic_metadata = vec![has_metadata(false)];
    let table = compile(one_host([with_metadata, on_path(prefix("/"))]));
    let mut metadata = Metadata::default();
    metadata.set("filter", serde_json::Map::from_iter([("key".to_owned(), true.into())]));
    for (metadata, route) in [(None, 1), (Some(&metadata), 0)] {
        let circumstances = Circumstances { metadata, ..Circumstances::default() };
        let headers = HeaderMap::new();
        let found = table.find(&get("/", &headers), 0, circumstances).unwrap();
        assert_eq!(found.route, Some(route));
    }
}

#[test]
fn every_condition_counts() {
    let with = |change: fn(&mut RouteMatch)| {
        let mut conditions = on_path(prefix("/"));
        change(&mut conditions);
        conditions
    };
    let table = compile(one_host([
        with(|on| on.headers = vec![header("x-a", "1"), header(":method", "GET")]),
        with(|on| {
            on.query_parameters = vec![QueryParameterMatcher { name: "q".into(), value: None }];
        }),
        with(|on| on.grpc = true),
        with(|on| on.tls = Some(TlsContextMatch { presented: Some(true), validated: None })),
        with(|on| on.dynamic_metadata = vec![has_metadata(false)]),
        with(|on| on.runtime_fraction = Some(Fraction { numerator: 30, denominator: 100 })),
        with(|on| on.dynamic_metadata = vec![has_metadata(true)]),
    ]));
    let find = |path, name: &'static str, value: &str, random, presented| {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        let tls = TlsPresence { presented, validated: false };
        let circumstances = Circumstances { tls, ..Circumstances::default() };
        table.find(&get(path, &headers), random, circumstances).unwrap().route
    };
    assert_eq!(find("/", "x-a", "1", 99, false), Some(0));
    assert_eq!(find("/", "x-a", "2", 99, false), Some(6));
    assert_eq!(find("/?q", "x-a", "2", 99, false), Some(1));
    assert_eq!(find("/", "content-type", "application/grpc", 99, false), Some(2));
    assert_eq!(find("/", "content-type", "application/grpc+proto", 99, false), Some(2));
    assert_eq!(find("/", "content-type", "application/grpc-web", 99, false), Some(6));
    assert_eq!(find("/", "content-type", "application/grpc;x", 99, false), Some(6));
    assert_eq!(find("/", "x-b", "", 99, true), Some(3));
    assert_eq!(find("/", "x-b", "", 129, false), Some(5));
    assert_eq!(find("/", "x-b", "", 130, false), Some(6));
}

#[test]
fn connect_requests_without_a_path_take_connect_routes_only() {
    let table = compile(one_host([prefix(""), PathMatch::Connect].map(on_path)));
    let headers = HeaderMap::new();
    let connect = RequestHead { method: &Method::CONNECT, ..get("", &headers) };
    assert_eq!(number(&table, &connect), Some(1));
    let with_path = RequestHead { path_and_query: "/", ..connect };
    assert_eq!(number(&table, &with_path), Some(0));

    let table = compile(one_host([on_path(PathMatch::Connect)]));
    assert_eq!(number(&table, &get("/", &headers)), None);
    let mut headers = HeaderMap::new();
    headers.insert("upgrade", HeaderValue::from_static("Connect-UDP"));
    assert_eq!(number(&table, &get("/", &headers)), Some(0));
}

#[test]
fn path_parameters_are_ignored_only_when_asked() {
    let mut config = one_host([on_path(exact("/a")), on_path(prefix("/"))]);
    let headers = HeaderMap::new();
    let head = get("/a;v=1?q=;", &headers);
    assert_eq!(number(&compile(config.clone()), &head), Some(1));
    config.ignore_path_parameters_in_path_matching = true;
    let table = compile(config);
    assert_eq!(number(&table, &head), Some(0));
    // Those of every segment, as Envoy 1.40 does.
    assert_eq!(number(&table, &get("/a;x/b", &headers)), Some(1));
    assert_eq!(table.matched_path(&get("/a;x/b;y;z/;c?d;e", &headers)), "/a/b/");
}

#[test]
fn a_virtual_host_without_a_matching_route_is_still_found() {
    let mut config = one_host([on_path(exact("/a"))]);
    config.virtual_hosts[0].domains = vec!["a.com".to_owned()];
    let table = compile(config);
    let headers = HeaderMap::new();
    let head = get("/b", &headers);
    let found = table.find(&head, 0, Circumstances::default()).unwrap();
    assert!(table.virtual_host(found).is_some());
    assert!(table.route(found).is_none());
    let stranger = RequestHead { authority: "b.com", ..head };
    assert_eq!(table.find(&stranger, 0, Circumstances::default()), None);
}

#[test]
fn https_is_demanded_of_whom_the_virtual_host_says() {
    for (require, proto, internal, expected) in [
        (RequireTls::None, "http", false, false),
        (RequireTls::ExternalOnly, "http", false, true),
        (RequireTls::ExternalOnly, "http", true, false),
        (RequireTls::ExternalOnly, "https", false, false),
        (RequireTls::All, "http", true, true),
        (RequireTls::All, "https", false, false),
    ] {
        let mut config = one_host([]);
        config.virtual_hosts[0].require_tls = require;
        let found = Found { virtual_host: 0, route: None };
        assert_eq!(compile(config).wants_https(found, proto, internal), expected);
    }
}

#[test]
fn the_first_virtual_cluster_whose_headers_match_counts_the_request() {
    let mut config = one_host([]);
    config.virtual_hosts[0].virtual_clusters = vec![
        VirtualCluster { name: "posts".into(), headers: vec![header(":method", "POST")] },
        VirtualCluster { name: "v2".into(), headers: vec![header("x-version", "2")] },
    ];
    let table = compile(config);
    let mut headers = HeaderMap::new();
    let found = table.find(&get("/", &headers), 0, Circumstances::default()).unwrap();
    assert_eq!(table.virtual_cluster(found, &get("/", &headers)), None);
    headers.insert("x-version", HeaderValue::from_static("2"));
    let cluster = table.virtual_cluster(found, &get("/", &headers));
    assert_eq!(cluster.map(|name| &**name), Some("v2"));
}

const REGEX_PARTS: &[&str] = &["/", "/a", "/(a|b)", "|", "/[ab]", ".*", "^/A?", "(?i)/a", "b$"];

fn any_path() -> impl Strategy<Value = PathMatch> {
    let text = "(/[abAB]{0,2}){0,3}";
    let kind = prop_oneof![
        text.prop_map(|text| exact(&text)),
        text.prop_map(|text| prefix(&text)),
        "(/[abAB]{1,2}){1,3}".prop_map(|text| separated(&text)),
        prop::collection::vec(prop::sample::select(REGEX_PARTS), 0..4)
            .prop_map(|parts| regex(&parts.concat())),
        Just(PathMatch::Connect),
    ];
    (kind, any::<bool>()).prop_map(|(path, fold)| if fold { folding(path) } else { path })
}

fn any_conditions() -> impl Strategy<Value = RouteMatch> {
    let name = prop_oneof![Just("x-a"), Just("x-b"), Just(":method")];
    let rule =
        (name, "[12]|GET", any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let headers = prop::collection::vec(rule, 0..3);
    let fraction = prop::option::weighted(0.2, 0..100_u32);
    (any_path(), headers, fraction).prop_map(|(path, headers, fraction)| RouteMatch {
        headers: headers
            .into_iter()
            .map(|(name, value, fold, invert, missing_as_empty)| {
                let pattern = StringPattern::Exact(value.into());
                let rule = HeaderRule::Value(StringMatcher::new(pattern, fold));
                HeaderMatcher { rule, invert, missing_as_empty, ..header(name, "") }
            })
            .collect(),
        runtime_fraction: fraction.map(|numerator| Fraction { numerator, denominator: 100 }),
        ..on_path(path)
    })
}

proptest! {
    #[test]
    fn the_compiled_table_equals_a_scan_in_order(
        conditions in prop::collection::vec(any_conditions(), 0..40),
        ignore_parameters in any::<bool>(),
        path in "(/[abAB]{0,2}){0,4}(;a)?([?]a=/b;)?",
        values in prop::collection::vec(("x-[ab]", "[12]"), 0..3),
        connect in prop::bool::weighted(0.2),
        random in 0..100_u64,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let method = if connect { Method::CONNECT } else { Method::GET };
        let head = RequestHead { method: &method, ..get(&path, &headers) };
        let matched = path.split(['?', '#']).next().unwrap();
        let bare = matched.split('/').map(|segment| segment.split(';').next().unwrap());
        let bare = bare.collect::<Vec<_>>().join("/");
        let matched = if ignore_parameters { &*bare } else { matched };
        let expected = conditions.iter().position(|conditions| {
            (!path.is_empty() || conditions.path == PathMatch::Connect)
                && matcher::mismatch(conditions, &head, matched, random, Circumstances::default())
                    .is_none()
        });
        let config = RouteConfig {
            ignore_path_parameters_in_path_matching: ignore_parameters,
            ..one_host(conditions)
        };
        let found = compile(config).find(&head, random, Circumstances::default()).unwrap();
        prop_assert_eq!(found.route.map(|number| number as usize), expected);
    }

    #[test]
    fn the_virtual_host_equals_the_longest_match_over_all_domains(
        domains in prop::collection::btree_set(r"[*]?[ab.]{1,4}|[ab.]{1,4}[*]|[*]", 0..12),
        authority in "[abAB.]{1,6}",
    ) {
        let domains: Vec<String> = domains.into_iter().collect();
        let hosts = domains.iter().map(|domain| VirtualHost {
            domains: vec![domain.clone()],
            ..VirtualHost::default()
        });
        let table = compile(RouteConfig {
            virtual_hosts: hosts.collect(),
            ..RouteConfig::default()
        });
        let host = authority.to_lowercase();
        let rank = |domain: &str| match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(""), _) => Some((0, 0)),
            (Some(suffix), _) => {
                (host.len() > suffix.len() && host.ends_with(suffix)).then_some((2, suffix.len()))
            }
            (None, Some(prefix)) => {
                (host.len() > prefix.len() && host.starts_with(prefix)).then_some((1, prefix.len()))
            }
            (None, None) => (host == domain).then_some((3, 0)),
        };
        let best = domains.iter().enumerate().filter_map(|(at, domain)| Some((rank(domain)?, at)));
        let expected = best.max().map(|(_, at)| at as u32);
        let headers = HeaderMap::new();
        let head = RequestHead { authority: &authority, ..get("/", &headers) };
        let found = table.find(&head, 0, Circumstances::default());
        prop_assert_eq!(found.map(|found| found.virtual_host), expected);
    }
}
