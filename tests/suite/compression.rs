//! `compressor`: who gets what compressed. What is made of what came compressed is in `decompressed.rs`.

mod decompressed;

use std::io::Read as _;

use harness::backend::Received;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Reply, Route, Value, json,
};
use http::Method;

on_both!(
    responses_are_compressed_for_clients_that_accept_it,
    of_several_compressions_the_client_chooses,
    some_responses_are_left_as_they_are,
    strong_etags_do_not_outlive_compression,
    responses_may_tell_what_became_of_them,
    content_types_may_be_matched,
    the_proxys_own_answers_are_compressed,
    routes_have_compressions_of_their_own,
    requests_are_compressed_where_that_is_wanted,
);

const TEXT: &str = "hello, hello, hello, hello, hello, hello, hello, hello, hello";

/// A body as whoever understands its `content-encoding` reads it.
fn plain(encoding: Option<&str>, body: &[u8]) -> String {
    let mut text = String::new();
    match encoding {
        Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap()),
        Some("br") => {
            brotli::Decompressor::new(body, 4096).read_to_string(&mut text).unwrap();
        }
        _ => text.push_str(std::str::from_utf8(body).unwrap()),
    }
    text
}

/// What encoded a reply, if anything; its content must be `TEXT`.
fn encoding(reply: &Reply) -> Option<String> {
    let encoding = reply.header("content-encoding");
    assert_eq!(plain(encoding.as_deref(), &reply.body), TEXT);
    assert_eq!(reply.header("content-length").is_some(), encoding.is_none());
    encoding
}

fn library(name: &str, message: &str) -> Value {
    let message = format!("type.googleapis.com/envoy.extensions.compression.{message}");
    json!({"name": name, "typed_config": {"@type": message}})
}

fn gzip_library() -> Value {
    library("text", "gzip.compressor.v3.Gzip")
}

fn brotli_library() -> Value {
    library("text", "brotli.compressor.v3.Brotli")
}

/// A chain that compresses with `library`; `fields` say what more.
fn compressor(http: Http, name: &str, library: Value, mut fields: Value) -> Http {
    fields["compressor_library"] = library;
    http.filter(name, "compressor.v3.Compressor", fields)
}

fn responses(fields: impl Into<Value>) -> Value {
    let fields: Value = fields.into();
    json!({"response_direction_config": fields})
}

fn everything() -> Http {
    Http::routing([Route::prefix("/").to("app")]).with("stat_prefix", "ing")
}

/// Answers with `TEXT`, and with the headers that the request's `x-answer` lists: `name: value | name: value`.
async fn texts() -> Backend {
    Backend::scripted("app", |call: &Received| {
        let wanted = call.header("x-answer").unwrap_or_default();
        let mut headers: Vec<_> = wanted.split('|').filter_map(|it| it.split_once(':')).collect();
        let status = headers.iter().position(|(name, _)| name.trim() == "status");
        let status = status.map_or("200", |at| headers.remove(at).1.trim());
        let mut answer = Answer::status(status.parse().unwrap());
        if !headers.iter().any(|(name, _)| name.trim() == "content-type") {
            answer = answer.header("content-type", "text/plain");
        }
        for (name, value) in headers {
            answer = answer.header(name.trim(), value.trim());
        }
        match call.method {
            Method::HEAD => answer.header("content-length", &TEXT.len().to_string()),
            _ if ["204", "304"].contains(&status) => answer,
            _ => answer.body(TEXT),
        }
    })
    .await
}

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

/// What the proxy answers to a client that accepts this, if the upstream's answer has these headers.
async fn ask(proxy: &Proxy, accepted: &str, answer: &str) -> Reply {
    proxy.get("/").header("accept-encoding", accepted).header("x-answer", answer).send().await
}

async fn responses_are_compressed_for_clients_that_accept_it(program: Program) {
    let app = texts().await;
    for (library, name, kind) in
        [(gzip_library(), "gzip", "gzip"), (brotli_library(), "br", "brotli")]
    {
        let http = compressor(everything(), "compress", library, responses(json!({})));
        let proxy = start(program, &app, http).await;
        let reply = ask(&proxy, name, "").await;
        assert_eq!(encoding(&reply).as_deref(), Some(name));
        assert_eq!(reply.header("vary").as_deref(), Some("Accept-Encoding"));
        let reply = ask(&proxy, "x", "vary: origin").await;
        assert_eq!(encoding(&reply), None);
        assert_eq!(reply.header("vary").as_deref(), Some("origin, Accept-Encoding"));
        assert_eq!(encoding(&proxy.get("/").send().await), None);
        for (stat, count) in [
            ("response.compressed", 1),
            ("response.not_compressed", 2),
            ("response.total_uncompressed_bytes", TEXT.len() as u64),
            ("header_compressor_used", 1),
            ("header_not_valid", 1),
            ("no_accept_header", 1),
            ("request.not_compressed", 3),
        ] {
            let stat = format!("http.ing.compressor.text.{kind}.{stat}");
            assert_eq!(proxy.stat(&stat).await, count, "{stat}");
        }
        let bytes = format!("http.ing.compressor.text.{kind}.response.total_compressed_bytes");
        assert!((1..TEXT.len() as u64).contains(&proxy.stat(&bytes).await));
    }
}

async fn of_several_compressions_the_client_chooses(program: Program) {
    let app = texts().await;
    let http = compressor(everything(), "gzip", gzip_library(), responses(json!({})));
    let plain = compressor(http.clone(), "br", brotli_library(), responses(json!({})));
    let first = json!({"choose_first": true, "response_direction_config": {}});
    let first = compressor(http, "br", brotli_library(), first);
    let (plain, first) = (start(program, &app, plain).await, start(program, &app, first).await);
    for (accepted, by_both, with_first) in [
        ("gzip", "gzip", "gzip"),
        ("br", "br", "br"),
        ("gzip, br", "gzip", "br"),
        ("br, gzip", "br", "br"),
        ("gzip;q=0.8, br;q=0.5", "gzip", "gzip"),
        ("gzip;q=0.5, br;q=0.8", "br", "br"),
        ("*", "gzip", "gzip"),
        ("gzip;q=0, *", "br", "br"),
        ("gzip;q=0.5, *;q=0.9", "gzip", "gzip"),
        ("identity, gzip", "", ""),
        ("gzip;q=0.5, identity", "", ""),
        ("deflate", "", ""),
        ("GZIP", "", ""),
        ("gzip;q=zero", "", ""),
        ("", "", ""),
    ] {
        for (proxy, wanted) in [(&plain, by_both), (&first, with_first)] {
            let reply = ask(proxy, accepted, "").await;
            let encoding = encoding(&reply);
            assert_eq!(encoding.as_deref(), Some(wanted).filter(|it| !it.is_empty()), "{accepted}");
            assert_eq!(reply.header("vary").as_deref(), Some("Accept-Encoding"), "{accepted}");
        }
    }
    for (stat, count) in [
        ("gzip.header_compressor_used", 3),
        ("gzip.header_compressor_overshadowed", 3),
        ("brotli.header_compressor_used", 3),
        ("brotli.header_wildcard", 3),
        ("gzip.header_identity", 2),
        ("gzip.header_not_valid", 4),
    ] {
        assert_eq!(plain.stat(&format!("http.ing.compressor.text.{stat}")).await, count, "{stat}");
    }
}

async fn some_responses_are_left_as_they_are(program: Program) {
    let app = texts().await;
    let rules = json!({
        "common_config": {"min_content_length": 10, "content_type": ["text/plain", "text/x"]},
        "disable_on_etag_header": true,
        "uncompressible_response_codes": [206],
    });
    let http = compressor(everything(), "compress", gzip_library(), responses(rules));
    let proxy = start(program, &app, http).await;
    for (answer, compressed) in [
        ("content-type: TEXT/X; charset=utf-8", true),
        ("content-type: text/html", false),
        ("cache-control: public, no-transform", false),
        ("content-encoding: identity", false),
        ("etag: W/x", false),
        ("status: 206", false),
        ("status: 404", true),
    ] {
        let reply = ask(&proxy, "gzip", answer).await;
        assert_eq!(plain(reply.header("content-encoding").as_deref(), &reply.body), TEXT);
        let encoding = reply.header("content-encoding").filter(|it| it == "gzip");
        assert_eq!(encoding.is_some(), compressed, "{answer}");
        assert_eq!(reply.header("vary").is_some(), compressed, "{answer}");
    }
    for (method, status) in [(Method::HEAD, "200"), (Method::GET, "204"), (Method::GET, "304")] {
        let call = proxy.client().call(method, "/").header("accept-encoding", "gzip");
        let reply = call.header("x-answer", &format!("status: {status}")).send().await;
        assert_eq!(reply.header("content-encoding"), None, "{status}");
        assert_eq!(reply.header("vary").as_deref(), Some("Accept-Encoding"), "{status}");
    }
    let scope = "http.ing.compressor.text.gzip";
    assert_eq!(proxy.stat(&format!("{scope}.not_compressed_etag")).await, 1);
    let rules = json!({"common_config": {"min_content_length": TEXT.len() + 1}});
    let http = compressor(everything(), "compress", gzip_library(), responses(rules));
    let proxy = start(program, &app, http).await;
    assert_eq!(encoding(&ask(&proxy, "gzip", "").await), None);
    assert_eq!(proxy.stat(&format!("{scope}.response.content_length_too_small")).await, 1);
}

async fn strong_etags_do_not_outlive_compression(program: Program) {
    let app = texts().await;
    let removing = compressor(everything(), "compress", gzip_library(), responses(json!({})));
    let rules = json!({"weaken_etag_on_compress": true, "disable_on_etag_header": true});
    let weakening = compressor(everything(), "compress", gzip_library(), responses(rules));
    let (removing, weakening) =
        (start(program, &app, removing).await, start(program, &app, weakening).await);
    for (etag, weak) in [("\"x\"", "W/\"x\""), ("W/\"x\"", "W/\"x\""), ("w/x", "w/x"), ("x", "W/x")]
    {
        let answer = format!("etag: {etag}");
        let reply = ask(&weakening, "gzip", &answer).await;
        assert_eq!(encoding(&reply).as_deref(), Some("gzip"));
        assert_eq!(reply.header("etag").as_deref(), Some(weak));
        let reply = ask(&removing, "gzip", &answer).await;
        assert_eq!(encoding(&reply).as_deref(), Some("gzip"));
        assert_eq!(reply.header("etag").as_deref(), Some(etag).filter(|etag| *etag == weak));
        let reply = ask(&removing, "br", &answer).await;
        assert_eq!(reply.header("etag").as_deref(), Some(etag));
    }
}

async fn responses_may_tell_what_became_of_them(program: Program) {
    let app = texts().await;
    let rules = json!({
        "status_header_enabled": true,
        "disable_on_etag_header": true,
        "uncompressible_response_codes": [404],
    });
    let http = compressor(everything(), "gzip", gzip_library(), responses(rules));
    let rules = json!({"status_header_enabled": true});
    let http = compressor(http, "br", brotli_library(), responses(rules));
    let proxy = start(program, &app, http).await;
    for (accepted, answer, told) in [
        ("gzip", "", Some("gzip;Compressed;OriginalLength=61")),
        ("br", "", Some("br;Compressed;OriginalLength=61")),
        ("gzip", "etag: x", Some("gzip;EtagNotAllowed")),
        ("gzip", "status: 404", Some("gzip;StatusCodeNotAllowed")),
        (
            "gzip",
            "status: 404 | etag: x | content-type: a/b",
            Some("br;ContentTypeNotAllowed,gzip;ContentTypeNotAllowed"),
        ),
        ("gzip", "cache-control: no-transform", None),
        ("gzip", "content-encoding: x | content-type: a/b", None),
        ("x", "", None),
    ] {
        let reply = ask(&proxy, accepted, answer).await;
        let says = reply.header("x-envoy-compression-status");
        assert_eq!(says.as_deref(), told, "{accepted} {answer}");
    }
}

async fn content_types_may_be_matched(program: Program) {
    let app = texts().await;
    let rules =
        json!({"common_config": {"content_type_matcher": [{"prefix": "app/"}, {"suffix": "+x"}]}});
    let http = compressor(everything(), "compress", gzip_library(), responses(rules));
    let proxy = start(program, &app, http).await;
    for (kind, compressed) in
        [("app/a", true), ("a/b+x; c=d", true), ("App/a", false), ("text/plain", false)]
    {
        let reply = ask(&proxy, "gzip", &format!("content-type: {kind}")).await;
        assert_eq!(encoding(&reply).is_some(), compressed, "{kind}");
    }
}

async fn the_proxys_own_answers_are_compressed(program: Program) {
    let app = texts().await;
    let http = Http::routing([Route::prefix("/").direct(200, TEXT)]).with("stat_prefix", "ing");
    // Without `response_direction_config` statistics have no direction either.
    let http = compressor(http, "compress", gzip_library(), json!({}));
    let proxy = start(program, &app, http).await;
    assert_eq!(encoding(&ask(&proxy, "gzip", "").await).as_deref(), Some("gzip"));
    assert_eq!(proxy.stat("http.ing.compressor.text.gzip.compressed").await, 1);
}

async fn routes_have_compressions_of_their_own(program: Program) {
    let app = texts().await;
    let tell = |path: &str, fields: Value| {
        Route::prefix(path).to("app").tell("compress", "compressor.v3.CompressorPerRoute", fields)
    };
    let overrides = |fields: Value| json!({"overrides": fields});
    let routes = [
        tell("/off", json!({"disabled": true})),
        tell("/on", overrides(json!({"response_direction_config": {}}))),
        tell("/br", overrides(json!({"compressor_library": brotli_library()}))),
        Route::prefix("/").to("app"),
    ];
    let on = compressor(
        Http::routing(routes.clone()).with("stat_prefix", "ing"),
        "compress",
        gzip_library(),
        responses(json!({})),
    );
    let disabled =
        json!({"common_config": {"enabled": {"default_value": false, "runtime_key": "k"}}});
    let off = compressor(Http::routing(routes), "compress", gzip_library(), responses(disabled));
    let (on, off) = (start(program, &app, on).await, start(program, &app, off).await);
    for (proxy, path, wanted) in [
        (&on, "/", Some("gzip")),
        (&on, "/off", None),
        (&on, "/br", Some("br")),
        (&off, "/", None),
        (&off, "/on", Some("gzip")),
        (&off, "/br", None),
    ] {
        let reply = proxy.get(path).header("accept-encoding", "gzip;q=0.5, br").send().await;
        assert_eq!(encoding(&reply).as_deref(), wanted, "{path}");
        assert_eq!(reply.header("vary").is_some(), wanted.is_some(), "{path}");
    }
    // What a route's own library does is counted under the filter's.
    assert_eq!(on.stat("http.ing.compressor.text.gzip.response.compressed").await, 2);
}

async fn requests_are_compressed_where_that_is_wanted(program: Program) {
    let app = Backend::scripted("app", |call: &Received| {
        let encoding = call.header("content-encoding");
        Answer::status(200)
            .header("content-type", "image/png")
            .header("x-encoding", encoding.unwrap_or("none"))
            .header("x-length", call.header("content-length").unwrap_or("none"))
            .header("x-accepts", call.header("accept-encoding").unwrap_or("none"))
            .body(plain(encoding, &call.body))
    })
    .await;
    let fields = json!({
        "request_direction_config": {"common_config": {"min_content_length": 10}},
        "response_direction_config": {
            "remove_accept_encoding_header": true,
        },
    });
    let proxy = start(program, &app, compressor(everything(), "c", gzip_library(), fields)).await;
    let post = |body: &'static str| {
        proxy.client().post("/").header("accept-encoding", "gzip, br").body(body)
    };
    let says = |reply: &Reply, header: &str| reply.header(header).unwrap();
    let reply = post(TEXT).header("content-type", "text/plain").send().await;
    assert_eq!(reply.text(), TEXT);
    assert_eq!(says(&reply, "x-encoding"), "gzip");
    assert_eq!(says(&reply, "x-length"), "none");
    assert_eq!(says(&reply, "x-accepts"), "none");
    for (call, body) in [
        (post(TEXT).header("content-type", "image/png"), TEXT),
        (post(TEXT).header("content-type", "text/plain").header("content-encoding", "x"), TEXT),
        (post("small").header("content-type", "text/plain"), "small"),
    ] {
        let reply = call.send().await;
        assert_eq!(reply.text(), body);
        assert_ne!(says(&reply, "x-encoding"), "gzip");
        assert_eq!(says(&reply, "x-length"), body.len().to_string());
    }
    let scope = "http.ing.compressor.text.gzip.request";
    for (stat, count) in [
        ("compressed", 1),
        ("not_compressed", 3),
        ("content_length_too_small", 1),
        ("total_uncompressed_bytes", TEXT.len() as u64),
    ] {
        assert_eq!(proxy.stat(&format!("{scope}.{stat}")).await, count, "{stat}");
    }
}
