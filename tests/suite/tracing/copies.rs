//! Copies of requests for other clusters, in the traces of these.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use harness::collector::{Collector, Reported};
use harness::eventually::eventually_true;
use harness::port::Port;
use harness::{Backend, Cluster, Http, Listener, Program, Route, json};

use super::{only, otlp, tags, tracing};

on_both!(copies_have_spans_of_their_own);

/// What the span of a copy to `cluster` at `host` says.
fn said(cluster: &str, host: SocketAddr, status: &str, flags: &str) -> BTreeMap<String, String> {
    let host = host.to_string();
    let mut said = tags([
        ("component", "proxy"),
        ("http.protocol", "HTTP/1.1"),
        ("http.status_code", status),
        ("peer.address", &host),
        ("response_flags", flags),
        ("upstream_address", &host),
        ("upstream_cluster", cluster),
        ("upstream_cluster.name", cluster),
    ]);
    if status == "503" {
        said.extend(tags([("error", "true")]));
    }
    said
}

async fn copies_have_spans_of_their_own(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let (mirror, unseen) = (Backend::echo("mirror").await, Backend::echo("unseen").await);
    let nobody = Port::reserve();
    let policies = json!([
        {"cluster": "mirror"},
        {"cluster": "unseen", "trace_sampled": false},
        {"cluster": "dead"},
    ]);
    let fields = json!({"provider": otlp()});
    let route = Route::prefix("/").to("app").with("route.request_mirror_policies", policies);
    let http = Http::routing([route]).with("tracing", fields);
    let cluster = Cluster::new("collector").endpoint(collector.address()).http2();
    let proxy = tracing(&app, cluster)
        .cluster(Cluster::new("mirror").endpoint(&mirror))
        .cluster(Cluster::new("unseen").endpoint(&unseen))
        .cluster(Cluster::new("dead").endpoint(&nobody))
        .listener(Listener::new("main", http))
        .start(program)
        .await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let spans = collector.until(3).await;
    let server = only(&spans, "SERVER");
    let copy = |cluster: &str| {
        let of_it = |span: &&Reported| span.tag("upstream_cluster") == cluster;
        spans.iter().filter(|span| span.kind == "CLIENT").find(of_it).unwrap()
    };
    let (answered, failed) = (copy("mirror"), copy("dead"));
    for span in [answered, failed] {
        assert_eq!((span.name.as_str(), &span.parent), ("mirror", &server.id));
    }
    assert_eq!(answered.tags, said("mirror", mirror.address(), "200", "-"));
    assert_eq!(failed.tags, said("dead", nobody.address(), "503", "UF"));
    for (backend, id, flags) in [(&mirror, Some(&answered.id), "01"), (&unseen, None, "00")] {
        eventually_true("the copy", async || backend.count() == 1).await;
        let told = backend.calls()[0].header("traceparent").unwrap().to_owned();
        let parts: Vec<_> = told.split('-').collect();
        assert_eq!((parts[1], parts[3]), (server.trace.as_str(), flags));
        assert!(parts[2] != server.id && id.is_none_or(|id| id == parts[2]), "{told}");
    }
}
