//! What do the header changes of a route cost a request: none, constant ones at every level, and formatted ones?

#![expect(clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proxy::config::format::{Facts, Format, Operator};
use proxy::config::header::{AppendAction, HeaderMutations, HeaderText, HeaderToAdd};
use proxy::config::matcher::RequestHead;
use proxy::config::route::{
    Action, DirectResponse, PathMatch, Route, RouteConfig, RouteMatch, VirtualHost,
};
use proxy::route::{Circumstances, RouteTable};

/// A request whose protocol and host are known.
struct Request;

impl Facts for Request {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::Protocol => out.extend_from_slice(b"HTTP/1.1"),
            Operator::Req(_) => out.extend_from_slice(b"shop.example.com"),
            _ => return false,
        }
        true
    }
}

/// `count` headers with `value`, and one to remove.
fn changes(level: &str, count: usize, value: &str) -> HeaderMutations {
    let add = |number| HeaderToAdd {
        name: HeaderName::try_from(format!("x-{level}-{number}")).expect("a valid name"),
        value: HeaderText::new(Format::parse(value).expect("a valid format"))
            .expect("a value to send"),
        action: AppendAction::OverwriteIfExistsOrAdd,
        keep_empty: false,
    };
    let remove = (count > 0).then_some(HeaderName::from_static("x-internal"));
    HeaderMutations { add: (0..count).map(add).collect(), remove: remove.into_iter().collect() }
}

/// A table whose three levels each set `count` headers to `value`.
fn table(count: usize, value: &str) -> RouteTable {
    let route = Route {
        filters: Vec::new(),
        name: "".into(),
        matcher: RouteMatch {
            path: PathMatch::Prefix { value: "/".into(), case_sensitive: true },
            headers: Vec::new(),
            query_parameters: Vec::new(),
            grpc: false,
            runtime_fraction: None,
            tls: None,
            dynamic_metadata: Vec::new(),
        },
        action: Action::DirectResponse(DirectResponse {
            status: StatusCode::OK,
            body: Bytes::new(),
        }),
        request_headers: changes("route", count, value),
        response_headers: HeaderMutations::default(),
        decorator: None,
        tracing: None,
        stat_prefix: None,
        request_body_buffer_limit: None,
        metadata: None,
    };
    let host = VirtualHost {
        domains: vec!["*".to_owned()],
        routes: vec![Arc::new(route)],
        request_headers: changes("host", count, value),
        ..VirtualHost::default()
    };
    let config = RouteConfig {
        virtual_hosts: vec![host],
        request_headers: changes("table", count, value),
        ..RouteConfig::default()
    };
    RouteTable::compile(Arc::new(config)).expect("a valid table")
}

fn header_rewrite(criterion: &mut Criterion) {
    let mut headers = HeaderMap::with_capacity(32);
    for name in ["accept", "user-agent", "x-request-id", "x-forwarded-for", "x-internal"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("value"));
    }
    let mut group = criterion.benchmark_group("header_rewrite");
    for (name, count, value) in [
        ("none", 0, ""),
        ("constant", 2, "outrigger"),
        ("formatted", 2, "%PROTOCOL% %REQ(:authority)% %REQ(x-request-id)%"),
    ] {
        let table = table(count, value);
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "shop.example.com",
            path_and_query: "/",
            headers: &headers,
        };
        let found = table.find(&head, 0, Circumstances::default()).expect("a route");
        let change = |mut headers: HeaderMap| {
            table.mutate_request(black_box(found), None, &mut headers, &Request);
            headers
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| headers.clone(), change, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, header_rewrite);
criterion_main!(benches);
