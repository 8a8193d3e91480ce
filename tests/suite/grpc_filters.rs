//! `grpc_stats` counts calls and messages; `grpc_web` lets browsers make calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::backend::Received;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Reply, Route,
    Value, json,
};

on_both!(
    calls_and_messages_are_counted,
    methods_are_counted_by_name_where_that_is_wanted,
    logs_may_tell_of_messages,
    calls_are_timed_where_that_is_wanted,
    browsers_get_trailers_in_the_body,
    browsers_may_speak_base64,
    what_is_no_base64_is_refused,
    others_than_browsers_see_no_difference,
);

on_outrigger_only!(answers_without_grpc_are_errors_for_browsers because GRPC_WEB_MESSAGES);

const STATS: &str = "grpc_stats.v3.FilterConfig";

/// A message as gRPC frames it.
fn message(content: &str) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &length, content.as_bytes()].concat()
}

/// Answers with two messages and the status that the request's `x-status` asks for.
async fn service() -> Backend {
    Backend::scripted("app", |call: &Received| {
        let status = match call.header("x-status") {
            Some("3") => "3",
            Some("5") => "5",
            Some("7") => "7",
            _ => "0",
        };
        let body = [message("first"), message("")].concat();
        Answer::status(200)
            .body(body)
            .header("content-type", "application/grpc")
            .header("x-got", &format!("{:?} {:?}", call.header("content-type"), call.header("te")))
            .header("x-body", &STANDARD.encode(&call.body))
            .trailer("grpc-status", status)
    })
    .await
}

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app).http2()).start(program).await
}

async fn call(proxy: &Proxy, path: &str, status: &str, messages: usize) -> Reply {
    let call = Client::http2(proxy.address("main")).post(path);
    let call = call.header("content-type", "application/grpc").header("te", "trailers");
    call.header("x-status", status).body(message("m").repeat(messages)).send().await
}

async fn calls_and_messages_are_counted(program: Program) {
    let app = service().await;
    let config = json!({"stats_for_all_methods": false, "emit_filter_state": true});
    let http = Http::routing([Route::prefix("/").to("app")]).filter("stats", STATS, config);
    let proxy = start(program, &app, http).await;
    for (path, status) in [("/a.B/C", "0"), ("/a.B/C", "5"), ("/d.E/F", "0"), ("/none", "0")] {
        let reply = call(&proxy, path, status, 3).await;
        assert_eq!(reply.trailer("grpc-status").as_deref(), Some(status));
    }
    proxy.get("/a.B/C").send().await;
    for (name, count) in [
        ("0", 2),
        ("5", 1),
        ("success", 2),
        ("failure", 1),
        ("total", 3),
        ("request_message_count", 9),
        ("response_message_count", 6),
    ] {
        proxy.until_stat(&format!("cluster.app.grpc.{name}"), |it| it == count).await;
    }
}

async fn methods_are_counted_by_name_where_that_is_wanted(program: Program) {
    let app = service().await;
    let listed = json!({"services": [{"name": "a.B", "method_names": ["C"]}]});
    let of = |config: Value| {
        Http::routing([Route::prefix("/").to("app")]).filter("stats", STATS, config)
    };
    let some = start(program, &app, of(json!({"individual_method_stats_allowlist": listed}))).await;
    let all = json!({"stats_for_all_methods": true, "replace_dots_in_grpc_service_name": true});
    let all = start(program, &app, of(all)).await;
    for proxy in [&some, &all] {
        call(proxy, "/a.B/C", "0", 1).await;
        call(proxy, "/a.B/D", "0", 1).await;
    }
    some.until_stat("cluster.app.grpc.a.B.C.total", |it| it == 1).await;
    some.until_stat("cluster.app.grpc.total", |it| it == 1).await;
    all.until_stat("cluster.app.grpc.a_B.C.success", |it| it == 1).await;
    all.until_stat("cluster.app.grpc.a_B.D.request_message_count", |it| it == 1).await;
}

async fn logs_may_tell_of_messages(program: Program) {
    let app = service().await;
    let routes = [Route::prefix("/direct").direct(200, ""), Route::prefix("/").to("app")];
    let config = json!({"emit_filter_state": true});
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let state = "%REQ(:path)% %FILTER_STATE(envoy.filters.http.grpc_stats)%";
    let http = Http::routing(routes).filter("stats", STATS, config).text_log(&log, state);
    let bootstrap = bootstrap.listener(Listener::new("main", http));
    let cluster = Cluster::new("app").endpoint(&app).http2();
    let proxy = bootstrap.cluster(cluster).start(program).await;
    for (path, messages) in [("/a.B/C", 3), ("/a.B/D", 1), ("/direct/a", 2)] {
        call(&proxy, path, "0", messages).await;
    }
    let lines = harness::eventually("all lines of the log", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        (lines.len() == 3).then_some(lines)
    });
    let state = |requests: u32| json!({"requestMessageCount": requests.to_string(), "responseMessageCount": "2"});
    for (line, (path, requests)) in
        lines.await.iter().zip([("/a.B/C", Some(3)), ("/a.B/D", Some(1)), ("/direct/a", None)])
    {
        let (logged, said) = line.split_once(' ').unwrap();
        assert_eq!(logged, path);
        let said: Value = serde_json::from_str(said).unwrap_or_default();
        assert_eq!(said, requests.map_or(Value::Null, state), "{line}");
    }
}

async fn calls_are_timed_where_that_is_wanted(program: Program) {
    let app = service().await;
    let config = json!({"stats_for_all_methods": true, "enable_upstream_stats": true});
    let http = Http::routing([Route::prefix("/").to("app")]).filter("stats", STATS, config);
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    let bootstrap = bootstrap.with("stats_flush_interval", "0.1s");
    let cluster = Cluster::new("app").endpoint(&app).http2();
    let proxy = bootstrap.cluster(cluster).start(program).await;
    for _ in 0..3 {
        call(&proxy, "/S/M", "0", 1).await;
    }
    let count = "envoy_cluster_grpc_upstream_rq_time_count{";
    harness::eventually("the times of three calls", async || {
        let text = proxy.admin().get("/stats/prometheus").send().await.text();
        let line = text.lines().find(|line| line.starts_with(count))?;
        for label in ["grpc_bridge_service=\"S\"", "grpc_bridge_method=\"M\""] {
            assert!(line.contains(label), "{line}");
        }
        line.ends_with(" 3").then_some(())
    })
    .await;
}

fn web(http: Http) -> Http {
    http.filter("web", "grpc_web.v3.GrpcWeb", json!({}))
}

/// The messages of a gRPC-Web body, of which the last holds the trailers, sorted.
fn read(mut body: &[u8]) -> (Vec<Vec<u8>>, Vec<String>) {
    let (mut messages, mut trailers) = (Vec::new(), Vec::new());
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let content = &body[5..5 + length];
        if body[0] == 0x80 {
            let text = std::str::from_utf8(content).unwrap();
            trailers = text.split_terminator("\r\n").map(ToOwned::to_owned).collect();
            trailers.sort();
        } else {
            messages.push(content.to_vec());
        }
        body = &body[5 + length..];
    }
    (messages, trailers)
}

async fn browsers_get_trailers_in_the_body(program: Program) {
    let app = service().await;
    let proxy = start(program, &app, web(Http::routing([Route::prefix("/").to("app")]))).await;
    for kind in ["application/grpc-web", "application/grpc-web+proto"] {
        let call = proxy.client().post("/a.B/C").header("content-type", kind);
        let reply = call.header("x-status", "7").body(message("asked")).send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type").as_deref(), Some("application/grpc-web+proto"));
        let got = reply.header("x-got").unwrap();
        assert_eq!(got, "Some(\"application/grpc\") Some(\"trailers\")");
        assert_eq!(reply.header("x-body"), Some(STANDARD.encode(message("asked"))));
        let (messages, trailers) = read(&reply.body);
        assert_eq!(messages, [b"first".to_vec(), Vec::new()]);
        assert_eq!(trailers, ["grpc-status:7"]);
        assert!(reply.trailers.is_empty());
    }
    proxy.until_stat("cluster.app.grpc-web.a.B.C.7", |it| it == 2).await;
}

async fn browsers_may_speak_base64(program: Program) {
    let app = service().await;
    let proxy = start(program, &app, web(Http::routing([Route::prefix("/").to("app")]))).await;
    let kind = "application/grpc-web-text";
    let call = proxy.client().post("/a.B/C").header("content-type", kind).header("accept", kind);
    let text = STANDARD.encode(message("asked"));
    let (begin, end) = text.split_at(5);
    let call = call.body(begin.to_owned());
    let call = call.body_after(std::time::Duration::from_millis(20), end.to_owned());
    let reply = call.send().await;
    assert_eq!(reply.header("content-type").as_deref(), Some("application/grpc-web-text+proto"));
    assert_eq!(reply.header("x-body"), Some(STANDARD.encode(message("asked"))));
    // Each piece is padded by itself.
    let groups = reply.body.chunks(4).map(|group| STANDARD.decode(group).unwrap());
    let (messages, trailers) = read(&groups.collect::<Vec<_>>().concat());
    assert_eq!(messages, [b"first".to_vec(), Vec::new()]);
    assert_eq!(trailers, ["grpc-status:0"]);
}

async fn what_is_no_base64_is_refused(program: Program) {
    let app = service().await;
    let proxy = start(program, &app, web(Http::routing([Route::prefix("/").to("app")]))).await;
    for text in ["AAAA!!!!", "AAAAA"] {
        let kind = "application/grpc-web-text";
        let call = proxy.client().post("/a.B/C").header("content-type", kind).body(text);
        let reply = call.send().await;
        assert_eq!(reply.status, 400, "{text}");
        assert_eq!(reply.header("grpc-status").as_deref(), Some("13"), "{text}");
        assert_eq!(reply.text(), "", "{text}");
    }
    proxy.until_stat("cluster.app.upstream_rq_active", |it| it == 0).await;
}

async fn others_than_browsers_see_no_difference(program: Program) {
    let app = service().await;
    let proxy = start(program, &app, web(Http::routing([Route::prefix("/").to("app")]))).await;
    let reply = call(&proxy, "/a.B/C", "3", 1).await;
    assert_eq!(reply.trailer("grpc-status").as_deref(), Some("3"));
    assert_eq!(reply.header("content-type").as_deref(), Some("application/grpc"));
}

async fn answers_without_grpc_are_errors_for_browsers(program: Program) {
    let app = Backend::scripted("app", |_| Answer::status(404).body("no such thing")).await;
    let routes = [Route::prefix("/direct").direct(503, "gone"), Route::prefix("/").to("app")];
    let proxy = start(program, &app, web(Http::routing(routes))).await;
    for (path, status) in [("/a/b", "12"), ("/direct", "14")] {
        let call = proxy.client().post(path).header("content-type", "application/grpc-web");
        let reply = call.body(message("m")).send().await;
        assert_eq!(reply.header("grpc-status").as_deref(), Some(status), "{path}");
        assert!(reply.header("content-type").unwrap().starts_with("application/grpc"), "{path}");
        assert_eq!(reply.text(), "", "{path}");
    }
}
