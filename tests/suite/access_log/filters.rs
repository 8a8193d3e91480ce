//! Which requests a log takes.

use harness::bootstrap::typed;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Program, Proxy, Route, Tcp, TcpBackend, Value, json,
};

on_both!(expressions_choose_requests, filters_of_every_kind_choose_requests, kinds_choose_lines);

/// A log for each of `filters`, all into one file: each line tells the number of its filter.
fn logs(file: &std::path::Path, filters: impl IntoIterator<Item = Value>, line: &str) -> Value {
    let log = |(number, filter): (usize, Value)| {
        let line = format!("{line} {number}\n");
        let config =
            json!({"path": file, "log_format": {"text_format_source": {"inline_string": line}}});
        let config = typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", config);
        json!({"name": "file", "filter": filter, "typed_config": config})
    };
    filters.into_iter().enumerate().map(log).collect()
}

/// The numbers of the filters that took each of `requests`, a path with headers.
async fn taken(
    program: Program,
    filters: impl IntoIterator<Item = Value>,
    requests: &[(&str, &[(&str, &str)])],
) -> Vec<Vec<usize>> {
    let app = Backend::scripted("app", |call| {
        let status = call.path.split(['/', '?']).nth(1).and_then(|it| it.parse().ok());
        Answer::status(status.unwrap_or(200)).header("x-answer", "42")
    })
    .await;
    let bootstrap = Bootstrap::new();
    // The last log takes everything: then the others of its request are there.
    let filters: Vec<Value> = filters.into_iter().chain([json!(null)]).collect();
    let all = filters.len() - 1;
    let of_route = json!({"filter_metadata": {"of.route": {"x": "y"}}});
    let route = Route::prefix("/").to("app").with("name", "the route").with("metadata", of_route);
    let log = logs(&bootstrap.dir().join("access.log"), filters, "%REQ(X-NUMBER)%");
    let http = Http::routing([Route::path("/direct").direct(403, "no"), route]);
    let proxy = bootstrap
        .listener(harness::Listener::new("main", http.with("access_log", log)))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    for (number, (path, headers)) in requests.iter().enumerate() {
        let call = proxy.get(path).header("x-number", &number.to_string());
        headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await;
    }
    let last = format!("{} {all}", requests.len() - 1);
    let text = until_logged(&proxy, &last).await;
    let mut taken = vec![Vec::new(); requests.len()];
    for line in text.lines() {
        let (request, filter) = line.split_once(' ').unwrap();
        let filter: usize = filter.parse().unwrap();
        if filter != all {
            taken[request.parse::<usize>().unwrap()].push(filter);
        }
    }
    taken.iter_mut().for_each(|filters| filters.sort_unstable());
    taken
}

async fn until_logged(proxy: &Proxy, last: &str) -> String {
    harness::eventually("the last line in the log", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        text.lines().any(|line| line == last).then_some(text)
    })
    .await
}

async fn expressions_choose_requests(program: Program) {
    let expressions = [
        "response.code >= 400 || 'x-debug' in request.headers",
        "response.code == 200",
        "request.path.startsWith('/404')",
        "request.url_path == '/200' && request.query == 'a=b'",
        "request.headers['X-Debug'] == 'on'",
        "!has(request.referer)",
        "response.flags == 0",
        "response.code_details == 'direct_response'",
        "response.headers['x-answer'] == '42'",
        "xds.route_metadata.filter_metadata['of.route']['x'] == 'y'",
        "xds.cluster_name == 'app'",
        "request.duration < duration('100s') && request.time > timestamp('2020-01-01T00:00:00Z')",
        "request.headers['x-number'] in ['0', '2']",
        "request.method.matches('^(GET|PUT)$') && size(request.host) > 0",
        "metadata.filter_metadata['none']['x'] == 'y'",
        "source.address.startsWith('127.0.0.1:') && destination.port > 0",
        "request.referer == 'http://r/' ? true : response.code == 403",
        "connection.mtls || request.scheme == 'https'",
        "response.code",
        "{'a': 'b'}['a'] == 'b' && !(3 in [1, 2])",
    ];
    let filter = |expression: &&str| {
        let config = json!({"expression": expression});
        let config =
            typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", config);
        json!({"extension_filter":
            {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}})
    };
    let requests: [(&str, &[(&str, &str)]); 4] = [
        ("/200?a=b", &[]),
        ("/404", &[("referer", "http://r/")]),
        ("/200", &[("x-debug", "on")]),
        ("/direct", &[]),
    ];
    let taken = taken(program, expressions.iter().map(filter), &requests).await;
    let expected = [
        vec![1, 3, 5, 6, 8, 9, 10, 11, 12, 13, 15, 19],
        vec![0, 2, 6, 8, 9, 10, 11, 13, 15, 16, 19],
        vec![0, 1, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 19],
        vec![0, 5, 6, 7, 11, 13, 15, 19],
    ];
    assert_eq!(taken, expected);
}

async fn filters_of_every_kind_choose_requests(program: Program) {
    let comparison = |op: &str, value: u32| json!({"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "none"}}});
    let debug = json!({"header_filter": {"header": {"name": "x-debug", "present_match": true}}});
    let failed = json!({"status_code_filter": comparison("GE", 400)});
    let absent = |if_absent: Value| {
        let matcher = json!({"filter": "none", "path": [{"key": "x"}],
            "value": {"string_match": {"exact": "y"}}});
        json!({"metadata_filter": {"matcher": matcher, "match_if_key_not_found": if_absent}})
    };
    let never = json!({"percent_sampled": {"numerator": 0}, "runtime_key": "none"});
    let filters = [
        failed.clone(),
        json!({"status_code_filter": comparison("LE", 200)}),
        json!({"status_code_filter": comparison("NE", 404)}),
        json!({"duration_filter": comparison("LE", 100_000)}),
        json!({"duration_filter": comparison("GE", 100_000)}),
        json!({"not_health_check_filter": {}}),
        json!({"runtime_filter": never}),
        debug.clone(),
        json!({"and_filter": {"filters": [failed, debug]}}),
        json!({"or_filter": {"filters": [failed, debug]}}),
        json!({"response_flag_filter": {}}),
        json!({"response_flag_filter": {"flags": ["NC", "NR"]}}),
        json!({"grpc_status_filter": {"statuses": ["UNIMPLEMENTED"]}}),
        json!({"grpc_status_filter": {"statuses": ["UNIMPLEMENTED"], "exclude": true}}),
        absent(json!(null)),
        absent(json!(true)),
        absent(json!(false)),
        json!({"metadata_filter": {}}),
        json!({"log_type_filter": {"types": ["DownstreamEnd"]}}),
        json!({"log_type_filter": {"types": ["DownstreamStart", "TcpConnectionEnd"]}}),
        json!({"log_type_filter": {"types": ["DownstreamStart"], "exclude": true}}),
        json!({"log_type_filter": {}}),
    ];
    let requests: [(&str, &[(&str, &str)]); 3] =
        [("/200", &[]), ("/404", &[("x-debug", "on")]), ("/503", &[])];
    let taken = taken(program, filters, &requests).await;
    let expected = [
        vec![1, 2, 3, 5, 13, 14, 15, 17, 18, 20],
        vec![0, 3, 5, 7, 8, 9, 12, 14, 15, 17, 18, 20],
        vec![0, 2, 3, 5, 9, 13, 14, 15, 17, 18, 20],
    ];
    assert_eq!(taken, expected);
}

async fn kinds_choose_lines(program: Program) {
    let app = TcpBackend::echo().await;
    let bootstrap = Bootstrap::new();
    let of = |kind: &str| json!({"log_type_filter": {"types": [kind]}});
    let filters = [of("TcpUpstreamConnected"), of("TcpConnectionEnd"), json!(null)];
    let log = logs(&bootstrap.dir().join("access.log"), filters, "%ACCESS_LOG_TYPE%");
    let tcp = Tcp::to("app")
        .with("access_log", log)
        .with("access_log_options.flush_access_log_on_connected", true);
    let listener = harness::Listener::new("main", tcp);
    let cluster = Cluster::new("app").endpoint(&app);
    let proxy = bootstrap.listener(listener).cluster(cluster).start(program).await;
    let mut client = proxy.connect().await;
    client.write("hello").await;
    assert_eq!(client.read_exactly(5).await, b"hello");
    drop(client);
    let text = until_logged(&proxy, "TcpConnectionEnd 2").await;
    let lines: Vec<&str> = text.lines().collect();
    let connected = ["TcpUpstreamConnected 0", "TcpUpstreamConnected 2"];
    assert_eq!(lines[..2], connected);
    assert_eq!(lines[2..], ["TcpConnectionEnd 1", "TcpConnectionEnd 2"]);
}
