//! `decompressor`: what is made of what came compressed.

use std::io::Read as _;
use std::path::Path;

use harness::backend::Received;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Value, json,
};
use http::Method;

use super::{TEXT, everything, library, responses, start};

on_both!(
    requests_are_decompressed,
    responses_are_decompressed,
    upstreams_learn_that_they_may_compress,
    what_says_so_is_not_decompressed,
);

on_outrigger_only!(
    requests_that_cannot_be_decompressed_are_refused because COMPRESSED_BODIES_HAVE_AN_END,
    responses_that_cannot_be_decompressed_break_off because COMPRESSED_BODIES_HAVE_AN_END,
);

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let level = flate2::Compression::default();
    flate2::read::GzEncoder::new(content, level).read_to_end(&mut coded).unwrap();
    coded
}

fn brotli(content: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    brotli::CompressorReader::new(content, 4096, 5, 18).read_to_end(&mut coded).unwrap();
    coded
}

fn decompressor(http: Http, library: Value, mut fields: Value) -> Http {
    fields["decompressor_library"] = library;
    http.filter("undo", "decompressor.v3.Decompressor", fields)
}

fn gunzip_library() -> Value {
    library("un", "gzip.decompressor.v3.Gzip")
}

fn unbrotli_library() -> Value {
    library("un", "brotli.decompressor.v3.Brotli")
}

async fn requests_are_decompressed(program: Program) {
    let app = Backend::echo("app").await;
    for (library, kind, name, coded) in [
        (gunzip_library(), "gzip", "gzip", gzip(TEXT.as_bytes())),
        (unbrotli_library(), "brotli", "br", brotli(TEXT.as_bytes())),
    ] {
        let http = decompressor(everything(), library, json!({}));
        let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
        let bootstrap = bootstrap.cluster(Cluster::new("app").endpoint(&app).http2());
        let proxy = bootstrap.start(program).await;
        let length = coded.len();
        let (begin, end) = coded.split_at(length / 2);
        let call = Client::http2(proxy.address("main")).post("/").body(begin.to_vec());
        let call = call.body_after(std::time::Duration::from_millis(20), end.to_vec());
        let call = call.header("content-encoding", &format!("{name}, x")).trailer("x-end", "1");
        let echo = call.send().await.echo();
        assert_eq!(echo.body(), TEXT);
        assert_eq!(echo.header("content-encoding").as_deref(), Some("x"));
        assert_eq!(echo.header("content-length"), None);
        assert_eq!(echo.trailer("x-end").as_deref(), Some("1"));
        let sizes = [("compressed", length), ("uncompressed", TEXT.len())];
        for (what, size) in sizes {
            let trailer = echo.trailer(&format!("x-envoy-decompressor-un-{what}-bytes"));
            assert_eq!(trailer, Some(size.to_string()));
            let stat = format!("http.ing.decompressor.un.{kind}.request.total_{what}_bytes");
            assert_eq!(proxy.stat(&stat).await, size as u64);
        }
        let stat = format!("http.ing.decompressor.un.{kind}.request.decompressed");
        assert_eq!(proxy.stat(&stat).await, 1);
        let stat = format!("http.ing.decompressor.un.{kind}.response.not_decompressed");
        assert_eq!(proxy.stat(&stat).await, 1);
    }
}

/// Answers with this body, which says that it is encoded so.
async fn encoded(encoding: &'static str, body: Vec<u8>) -> Backend {
    Backend::scripted("app", move |_| {
        Answer::status(200).header("content-encoding", encoding).body(body.clone())
    })
    .await
}

async fn responses_are_decompressed(program: Program) {
    for (library, encoding, rest, coded) in [
        (gunzip_library(), "GZIP", None, gzip(TEXT.as_bytes())),
        (gunzip_library(), "gzip,x", Some("x"), gzip(TEXT.as_bytes())),
        (unbrotli_library(), "br", None, brotli(TEXT.as_bytes())),
    ] {
        let length = coded.len().to_string();
        let app = encoded(encoding, coded).await;
        let proxy = start(program, &app, decompressor(everything(), library, json!({}))).await;
        let reply = Client::http2(proxy.address("main")).get("/").send().await;
        assert_eq!(reply.text(), TEXT);
        assert_eq!(reply.header("content-encoding").as_deref(), rest);
        assert_eq!(reply.header("content-length"), None);
        let trailer = "x-envoy-decompressor-un-compressed-bytes";
        assert_eq!(reply.trailer(trailer), Some(length));
        let reply = proxy.client().call(Method::HEAD, "/").send().await;
        assert_eq!(reply.header("content-encoding").as_deref(), Some(encoding));
    }
}

async fn upstreams_learn_that_they_may_compress(program: Program) {
    let app = Backend::echo("app").await;
    let silent = json!({"request_direction_config": {"advertise_accept_encoding": false}});
    let off = json!({"common_config": {"enabled": {"default_value": false, "runtime_key": "k"}}});
    for (fields, all) in [
        (json!({}), ["gzip", "gzip", "br,x,gzip"]),
        (silent, ["none", "gzip;q=0.1", "br, gzip;q=0.1 , x"]),
        (responses(off), ["none", "gzip;q=0.1", "br, gzip;q=0.1 , x"]),
    ] {
        let http = decompressor(everything(), gunzip_library(), fields);
        let proxy = start(program, &app, http).await;
        for (accepted, told) in ["", "gzip;q=0.1", "br, gzip;q=0.1 , x"].iter().zip(all) {
            let call = proxy.get("/");
            let call = match *accepted {
                "" => call,
                accepted => call.header("accept-encoding", accepted),
            };
            let echo = call.send().await.echo();
            assert_eq!(echo.header("accept-encoding").as_deref().unwrap_or("none"), told);
        }
    }
}

async fn what_says_so_is_not_decompressed(program: Program) {
    let app = Backend::echo("app").await;
    let ignore = json!({"common_config": {"ignore_no_transform_header": true}});
    let fields = [json!({}), json!({"request_direction_config": ignore})];
    for (fields, decompressed) in fields.into_iter().zip([0, 1]) {
        let http = decompressor(everything(), gunzip_library(), fields);
        let proxy = start(program, &app, http).await;
        let call = proxy.client().post("/").header("cache-control", "no-cache, No-Transform");
        let reply = call.header("content-encoding", "gzip").body(gzip(b"text")).send().await;
        assert_eq!(reply.echo().body() == "text", decompressed == 1);
        for (stat, count) in
            [("decompressed", decompressed), ("not_decompressed", 1 - decompressed)]
        {
            let stat = format!("http.ing.decompressor.un.gzip.request.{stat}");
            assert_eq!(proxy.stat(&stat).await, count, "{stat}");
        }
    }
}

/// Bodies that say that they are compressed, and what is wrong with them.
fn bad_bodies() -> [(&'static str, Vec<u8>, &'static str); 6] {
    let truncated = |mut coded: Vec<u8>| {
        coded.truncate(coded.len() - 1);
        coded
    };
    let zeros = vec![0; 1_000_000];
    [
        ("gzip", b"no gzip at all".to_vec(), "Bad request, invalid compressed data."),
        ("br", b"garbage, garbage".to_vec(), "Bad request, invalid compressed data."),
        ("gzip", truncated(gzip(b"text")), "Bad request, truncated compressed data."),
        ("br", truncated(brotli(b"text")), "Bad request, truncated compressed data."),
        ("gzip", gzip(&zeros), "Bad request, compressed data becomes too large."),
        ("br", brotli(&zeros), "Bad request, compressed data becomes too large."),
    ]
}

/// A chain that undoes both, and logs to `file`.
fn undoing(file: &Path) -> Http {
    let http = decompressor(everything(), gunzip_library(), json!({}));
    let http = decompressor(http, unbrotli_library(), json!({}));
    http.text_log(file, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
}

async fn logged(file: &Path, lines: usize) -> Vec<String> {
    harness::eventually("all lines of the log", async || {
        let text = std::fs::read_to_string(file).unwrap();
        let all: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        (all.len() == lines).then_some(all)
    })
    .await
}

async fn errors(proxy: &Proxy) -> [u64; 3] {
    let names = [
        "gzip.decompressor_library.zlib_data_error",
        "brotli.decompressor_library.brotli_error",
        "brotli.decompressor_library.brotli_output_overflow",
    ];
    let mut counts = [0; 3];
    for (count, name) in counts.iter_mut().zip(names) {
        *count = proxy.stat(&format!("http.ing.decompressor.un.{name}")).await;
    }
    counts
}

async fn requests_that_cannot_be_decompressed_are_refused(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let proxy = bootstrap
        .listener(Listener::new("main", undoing(&log)))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    for (encoding, body, answer) in bad_bodies() {
        let call = proxy.client().post("/").header("content-encoding", encoding).body(body);
        let reply = call.send().await;
        assert_eq!((reply.status, reply.text()), (400, answer.to_owned()));
    }
    for line in logged(&log, 6).await {
        assert!(
            line.starts_with("400 ") && line.ends_with(" request_decompression_failed"),
            "{line}"
        );
    }
    assert_eq!(errors(&proxy).await, [3, 3, 1]);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_5xx").await, 0);
}

async fn responses_that_cannot_be_decompressed_break_off(program: Program) {
    let app = Backend::scripted("app", |call: &Received| {
        let bad = bad_bodies();
        let (encoding, body, _) = &bad[call.path[1..].parse::<usize>().unwrap()];
        Answer::status(200).header("content-encoding", encoding).body(body.clone())
    })
    .await;
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let bootstrap = bootstrap.listener(Listener::new("main", undoing(&log)));
    let proxy = bootstrap.cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    for nth in 0..6 {
        let path = format!("/{nth}");
        let client = Client::http2(proxy.address("main"));
        assert!(client.get(&path).try_send().await.is_err(), "{path}");
    }
    for line in logged(&log, 6).await {
        assert_eq!(line, "200 UPE upstream_reset_after_response_started{protocol_error}");
    }
    assert_eq!(errors(&proxy).await, [3, 3, 1]);
}
