//! Does a table of 10,000 routes cost a request more than a table of ten?
//!
//! For each kind of condition, the first and the last route of a virtual host are looked up.

#![expect(clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use proxy::config::header::HeaderMutations;
use proxy::config::matcher::{
    HeaderMatcher, HeaderRef, HeaderRule, Regex, RequestHead, StringMatcher, StringPattern,
};
use proxy::config::route::{
    Action, DirectResponse, PathMatch, Route, RouteConfig, RouteMatch, VirtualHost,
};
use proxy::route::{Circumstances, RouteTable};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// A kind of route, and the path that reaches the one with a given number.
struct Kind {
    name: &'static str,
    conditions: fn(usize) -> RouteMatch,
    path: fn(usize) -> String,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "exact",
        conditions: |number| on(PathMatch::Exact { value: path(number), case_sensitive: true }),
        path: |number| path(number).into_string(),
    },
    Kind {
        name: "prefix",
        conditions: |number| on(PathMatch::Prefix { value: path(number), case_sensitive: true }),
        path: |number| format!("{}/items/7?verbose=1", path(number)),
    },
    Kind {
        name: "regex",
        conditions: |number| {
            let regex = Regex::new(&format!("{}/items/[0-9]+", path(number)));
            on(PathMatch::Regex(regex.expect("a valid expression")))
        },
        path: |number| format!("{}/items/7?verbose=1", path(number)),
    },
    Kind {
        name: "header",
        conditions: |number| {
            let tenant = StringMatcher::new(StringPattern::Exact(tenant(number).into()), false);
            let tenant = HeaderMatcher {
                header: HeaderRef::parse("x-tenant").expect("a valid name"),
                rule: HeaderRule::Value(tenant),
                invert: false,
                missing_as_empty: false,
            };
            let any = on(PathMatch::Prefix { value: "/".into(), case_sensitive: true });
            RouteMatch { headers: vec![tenant], ..any }
        },
        path: |_| "/items/7?verbose=1".to_owned(),
    },
];

fn path(number: usize) -> Box<str> {
    format!("/api/v1/service-{number:05}").into()
}

fn tenant(number: usize) -> String {
    format!("tenant-{number:05}")
}

fn on(path: PathMatch) -> RouteMatch {
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

fn table(kind: &Kind, size: usize) -> RouteTable {
    let route = |number| {
        let response = DirectResponse { status: StatusCode::OK, body: Bytes::new() };
        Arc::new(Route {
            filters: Vec::new(),
            name: "".into(),
            matcher: (kind.conditions)(number),
            action: Action::DirectResponse(response),
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            decorator: None,
            tracing: None,
            stat_prefix: None,
            request_body_buffer_limit: None,
            metadata: None,
        })
    };
    let host = VirtualHost {
        domains: vec!["*.example.com".to_owned()],
        routes: (0..size).map(route).collect(),
        ..VirtualHost::default()
    };
    let config = RouteConfig { virtual_hosts: vec![host], ..RouteConfig::default() };
    RouteTable::compile(Arc::new(config)).expect("a valid table")
}

fn route_match(criterion: &mut Criterion) {
    for kind in &KINDS {
        let mut group = criterion.benchmark_group(format!("route_match/{}", kind.name));
        for size in SIZES {
            let table = table(kind, size);
            for (place, number) in [("first", 0), ("last", size - 1)] {
                let path = (kind.path)(number);
                let mut headers = HeaderMap::new();
                let tenant = HeaderValue::from_str(&tenant(number)).expect("a valid value");
                headers.insert("x-tenant", tenant);
                headers.insert("user-agent", HeaderValue::from_static("bench"));
                let head = RequestHead {
                    method: &Method::GET,
                    scheme: "http",
                    authority: "shop.example.com",
                    path_and_query: &path,
                    headers: &headers,
                };
                let find = || table.find(black_box(&head), 0, Circumstances::default());
                assert!(find().and_then(|found| table.route(found)).is_some(), "no route");
                group.bench_function(BenchmarkId::new(place, size), |bencher| bencher.iter(find));
            }
        }
        group.finish();
    }
}

criterion_group!(benches, route_match);
criterion_main!(benches);
