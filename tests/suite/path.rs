//! The path that is matched is the path that is forwarded, and no spelling slips past a route.

use harness::{
    Backend, Bootstrap, Cluster, Http, Program, Proxy, RawConnection, Route, Value, json,
};

on_both!(
    dot_segments_are_resolved,
    slashes_are_merged,
    escaped_slashes_follow_the_configured_action,
    paths_are_left_alone_by_default,
    the_port_of_the_host_is_stripped,
    the_trailing_dot_of_the_host_is_stripped,
    a_fragment_is_refused,
    a_fragment_may_be_taken_off,
    absolute_form_takes_the_host_of_the_target,
);

async fn echoing(program: Program, backend: &Backend, change: impl Fn(Http) -> Http) -> Proxy {
    let http = Http::routing([
        Route::prefix("/admin").direct(403, "denied"),
        Route::prefix("/").to("app"),
    ]);
    Bootstrap::http(change(http))
        .cluster(Cluster::new("app").endpoint(backend))
        .start(program)
        .await
}

/// Sends `target` as it is and returns the status line and what the backend saw as its path.
async fn status_of(proxy: &Proxy, target: &str) -> String {
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    let response = connection.read_response().await;
    response.split(' ').nth(1).unwrap().to_owned()
}

async fn dot_segments_are_resolved(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http.with("normalize_path", true)).await;
    for target in ["/x/../admin", "/./admin", "/x/%2e%2e/admin", "/x/.%2E/admin/y"] {
        assert_eq!(status_of(&proxy, target).await, "403", "{target}");
    }
    for (target, path) in [
        ("/a/./b/../c?q=/../x", "/a/c?q=/../x"),
        ("/a/b/..", "/a/"),
        ("/%61%7e", "/a~"),
        ("/a%20b", "/a%20b"),
    ] {
        assert_eq!(proxy.get(target).send().await.echo().path(), path, "{target}");
    }
    assert_eq!(status_of(&proxy, "/a%00b").await, "400");
}

async fn slashes_are_merged(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http.with("merge_slashes", true)).await;
    assert_eq!(status_of(&proxy, "//admin").await, "403");
    let echo = proxy.get("/a//b///c?x//y").send().await.echo();
    assert_eq!(echo.path(), "/a/b/c?x//y");
}

async fn escaped_slashes_follow_the_configured_action(program: Program) {
    let app = Backend::echo("app").await;
    let with = async |action: &str| {
        echoing(program, &app, |http| {
            http.with("normalize_path", true).with("path_with_escaped_slashes_action", action)
        })
        .await
    };
    let proxy = with("REJECT_REQUEST").await;
    assert_eq!(status_of(&proxy, "/a%2fb").await, "400");
    assert_eq!(status_of(&proxy, "/a%5Cb").await, "400");
    let proxy = with("KEEP_UNCHANGED").await;
    assert_eq!(proxy.get("/a%2fb").send().await.echo().path(), "/a%2fb");
    let proxy = with("UNESCAPE_AND_FORWARD").await;
    assert_eq!(proxy.get("/a%2fb").send().await.echo().path(), "/a/b");
    assert_eq!(status_of(&proxy, "/x%2f..%2fadmin").await, "403");
    let proxy = with("UNESCAPE_AND_REDIRECT").await;
    let reply = proxy.get("/a%2fb?c").send().await;
    assert_eq!(reply.status, 307);
    assert_eq!(reply.header("location").as_deref(), Some("/a/b?c"));
}

async fn paths_are_left_alone_by_default(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    for target in ["/a//b", "/a%2fb", "/a%20b?x=%2f"] {
        assert_eq!(proxy.get(target).send().await.echo().path(), target);
    }
}

async fn the_port_of_the_host_is_stripped(program: Program) {
    let app = Backend::echo("app").await;
    let any = echoing(program, &app, |http| http.with("strip_any_host_port", true)).await;
    assert_eq!(any.get("/").host("a.test:1234").send().await.echo().host(), "a.test");
    assert_eq!(any.get("/").host("[::1]:1234").send().await.echo().host(), "[::1]");
    let matching = echoing(program, &app, |http| http.with("strip_matching_host_port", true)).await;
    let port = matching.address("main").port();
    let same = matching.get("/").host(&format!("a.test:{port}")).send().await.echo();
    assert_eq!(same.host(), "a.test");
    let other = matching.get("/").host("a.test:1").send().await.echo();
    assert_eq!(other.host(), "a.test:1");
}

async fn the_trailing_dot_of_the_host_is_stripped(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http.with("strip_trailing_host_dot", true)).await;
    assert_eq!(proxy.get("/").host("a.test.").send().await.echo().host(), "a.test");
    assert_eq!(proxy.get("/").host("a.test.:80").send().await.echo().host(), "a.test:80");
}

async fn a_fragment_is_refused(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    assert_eq!(status_of(&proxy, "/a#b").await, "400");
    assert_eq!(app.count(), 0);
}

async fn a_fragment_may_be_taken_off(program: Program) {
    let app = Backend::echo("app").await;
    let with = async |rejects: Value| {
        let values = json!({"envoy.reloadable_features.http_reject_path_with_fragment": rejects});
        let layers = json!([{"name": "global config", "static_layer": values}]);
        Bootstrap::routing([Route::prefix("/").to("app")])
            .with("layered_runtime.layers", layers)
            .cluster(Cluster::new("app").endpoint(&app))
            .start(program)
            .await
    };
    let proxy = with(false.into()).await;
    for (asked, got) in [("/a#b", "/a"), ("/a?c=d#b?e", "/a?c=d"), ("/#", "/")] {
        assert_eq!(status_of(&proxy, asked).await, "200", "{asked}");
        assert_eq!(app.calls().last().unwrap().path, got);
    }
    // A text is none of the switch's positions.
    for rejects in [Value::from("false"), true.into()] {
        let proxy = with(rejects).await;
        assert_eq!(status_of(&proxy, "/a#b").await, "400");
    }
}

async fn absolute_form_takes_the_host_of_the_target(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    assert_eq!(status_of(&proxy, "http://b.test/path?q").await, "200");
    let call = &app.calls()[0];
    assert_eq!((call.host.as_str(), call.path.as_str()), ("b.test", "/path?q"));
}
