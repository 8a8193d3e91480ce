//! The access logs of listeners: of connections.

use harness::bootstrap::typed;
use harness::{Backend, Bootstrap, Cluster, Http, Listener, Program, Route, Value, json};

on_both!(a_connection_that_no_chain_takes_is_logged, a_connection_is_logged_when_it_ends);

const FORMAT: &str = "%RESPONSE_FLAGS% %FILTER_CHAIN_NAME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
    %ACCESS_LOG_TYPE% %RESPONSE_CODE% %METADATA(LISTENER:of.listener:x)%";

/// Two logs in one file: one of every connection, and one of those that no chain takes.
fn logs(file: &std::path::Path) -> Value {
    let log = |name: &str, filter: Value| {
        let line = format!("{name} {FORMAT}\n");
        let config =
            json!({"path": file, "log_format": {"text_format_source": {"inline_string": line}}});
        let config = typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", config);
        json!({"name": "file", "filter": filter, "typed_config": config})
    };
    let unmatched = json!({"response_flag_filter": {"flags": ["NR"]}});
    json!([log("unmatched", unmatched), log("all", json!(null))])
}

async fn lines(program: Program, matching: Value, ask: bool, count: usize) -> Vec<String> {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let log = logs(&bootstrap.dir().join("access.log"));
    let metadata = json!({"filter_metadata": {"of.listener": {"x": "y"}}});
    let listener = Listener::new("main", Http::routing([Route::prefix("/").to("app")]))
        .with("filter_chains.0.name", "chain")
        .with("filter_chains.0.filter_chain_match", matching)
        .with("metadata", metadata)
        .with("access_log", log);
    let cluster = Cluster::new("app").endpoint(&app);
    let proxy = bootstrap.listener(listener).cluster(cluster).start(program).await;
    let mut connection = proxy.connect().await;
    if ask {
        connection.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    }
    connection.read_to_close().await;
    drop(connection);
    harness::eventually("lines in the log", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

async fn a_connection_that_no_chain_takes_is_logged(program: Program) {
    let lines = lines(program, json!({"destination_port": 1}), false, 2).await;
    let expected = ["unmatched NR - 127.0.0.1 NotSet 0 y", "all NR - 127.0.0.1 NotSet 0 y"];
    assert_eq!(lines, expected);
}

async fn a_connection_is_logged_when_it_ends(program: Program) {
    let lines = lines(program, json!({}), true, 1).await;
    assert_eq!(lines, ["all - chain 127.0.0.1 NotSet 0 y"]);
}
