//! What routes do: faults, mirrors and CORS of VirtualServices, as clients of a sidecar meet them.

use std::time::{Duration, Instant};

use harness::client::Call;
use harness::eventually::has_waited;
use harness::{Backend, Client, Program, Reply, eventually, json};

use super::mesh::{Mesh, Node};
use super::{PRODUCTPAGE, pod};

on_both!(
    one_user_waits,
    one_user_fails,
    one_user_sees_another_version,
    requests_are_mirrored,
    origins_are_allowed_as_the_policy_says,
    preflights_are_answered_as_the_policy_says,
);

/// A service, by its address.
fn service(address: &str) -> Client {
    Client::http1(address.parse().unwrap())
}

fn ratings() -> Call {
    service("10.96.73.224:9080").get("/ratings/0").host("ratings:9080")
}

/// The sidecar of productpage, which is the client here.
fn sidecar(mesh: &Mesh) -> Node<'_> {
    mesh.redirect(PRODUCTPAGE);
    mesh.node("sidecar-productpage").with_plain_endpoints()
}

async fn one_user_waits(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _ratings = Backend::echo_at("ratings", pod(24, 9080)).await;
    let _proxy = sidecar(&mesh).start(program).await;
    let begun = Instant::now();
    let (slow, fast) = tokio::join!(ratings().header("end-user", "jason").send(), async {
        let reply = ratings().header("end-user", "jasons").send().await;
        (reply.status, begun.elapsed())
    });
    assert_eq!((slow.status, fast.0), (200, 200));
    assert!(has_waited(begun.elapsed(), Duration::from_secs(7)), "{:?}", begun.elapsed());
    assert!(fast.1 < Duration::from_secs(7), "{:?}", fast.1);
}

async fn one_user_fails(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("ratings", pod(24, 9080)).await;
    let _proxy = sidecar(&mesh).pushed("017-rds").with_plain_endpoints().start(program).await;
    let reply = ratings().header("end-user", "jason").send().await;
    assert_eq!((reply.status, &*reply.text()), (500, "fault filter abort"));
    assert_eq!(app.count(), 0);
    assert_eq!(ratings().send().await.status, 200);
}

async fn one_user_sees_another_version(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _backends =
        [Backend::echo_at("v2", pod(26, 9080)).await, Backend::echo_at("v3", pod(27, 9080)).await];
    let _proxy = sidecar(&mesh).pushed("020-rds").start(program).await;
    let reviews = service("10.96.50.213:9080").get("/").host("reviews");
    for (user, version) in [("jason", "v2"), ("jason", "v2"), ("other", "v3"), ("other", "v3")] {
        let echo = reviews.clone().header("end-user", user).send().await.echo();
        assert_eq!(echo.backend(), version, "{user}");
    }
}

fn httpbin(path: &str) -> Call {
    service("10.96.244.144:8000").get(path).host("httpbin")
}

/// What the route `mirrored` asks for.
fn special(call: Call) -> Call {
    call.host("httpbin").header("x-a", "b1").header("x-p", "p1").header("x-present", "")
}

async fn requests_are_mirrored(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _httpbins = [
        Backend::echo_at("httpbin", pod(22, 8080)).await,
        Backend::echo_at("httpbin", pod(4, 8080)).await,
    ];
    let mirror = Backend::echo_at("ratings", pod(24, 9080)).await;
    let sampled = Backend::echo_at("details", pod(20, 9080)).await;
    // It mirrors to ports that these services do not have.
    let node = sidecar(&mesh).changed(|part| {
        for service in ["|details", "v1|ratings"] {
            let [meant, there] = [8000, 9080]
                .map(|port| format!("outbound|{port}|{service}.default.svc.cluster.local"));
            if part == &meant {
                *part = there.into();
            }
        }
    });
    let _proxy = node.start(program).await;
    for _ in 0..20 {
        assert_eq!(httpbin("/mirrors").send().await.echo().backend(), "httpbin");
    }
    eventually("every copy", async || (mirror.count() == 20).then_some(())).await;
    let hosts: Vec<_> = mirror.calls().into_iter().map(|call| (call.path, call.host)).collect();
    assert!(hosts.iter().all(|it| *it == ("/mirrors".into(), "httpbin".into())), "{hosts:?}");
    assert!(sampled.count() < 15, "{}", sampled.count());
    // Some of these are to be mirrored to a cluster that there is not.
    for _ in 0..20 {
        let echo = special(httpbin("/mirror?v=1&w=a")).send().await.echo();
        assert_eq!((echo.backend(), echo.header("x-add").as_deref()), ("httpbin", Some("a")));
    }
    assert_eq!(mirror.count(), 20);
}

/// What a browser is told about its origin.
fn told(reply: &Reply) -> [Option<String>; 6] {
    let names = ["origin", "credentials", "methods", "headers"];
    let [origin, credentials, methods, headers] =
        names.map(|name| reply.header(&format!("access-control-allow-{name}")));
    let exposed = reply.header("access-control-expose-headers");
    [origin, credentials, methods, headers, exposed, reply.header("access-control-max-age")]
}

async fn origins_are_allowed_as_the_policy_says(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _httpbins = [
        Backend::echo_at("httpbin", pod(22, 8080)).await,
        Backend::echo_at("httpbin", pod(4, 8080)).await,
    ];
    let _proxy = sidecar(&mesh).start(program).await;
    for (path, origin, is_allowed) in [
        ("/mirror?v=1&w=a", "https://a.example.com", true),
        ("/mirror?v=1&w=a", "http://x.example.org", true),
        ("/mirror?v=1&w=a", "https://b.example.com", false),
        ("/other", "https://a.example.com", false),
    ] {
        let reply = special(httpbin(path)).header("origin", origin).send().await;
        assert_eq!(reply.status, 200);
        let expected = match is_allowed {
            true => [Some(origin), Some("true"), None, None, Some("x-e"), None],
            false => [None; 6],
        };
        assert_eq!(told(&reply), expected.map(|it| it.map(str::to_owned)), "{path} {origin}");
    }
}

async fn preflights_are_answered_as_the_policy_says(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("httpbin", pod(22, 8080)).await;
    let _other = Backend::echo_at("httpbin", pod(4, 8080)).await;
    // The route is for GET only, so that no preflight would ever come to it.
    let node = sidecar(&mesh).changed(|part| {
        if let Some(items) = part.as_array_mut() {
            let get = json!({"name": ":method", "string_match": {"exact": "GET"}});
            items.retain(|item| *item != get);
        }
    });
    let _proxy = node.start(program).await;
    let preflight = |origin: &str| {
        let call =
            service("10.96.244.144:8000").call("OPTIONS".parse().unwrap(), "/mirror?v=1&w=a");
        special(call).header("origin", origin).header("access-control-request-method", "POST")
    };
    let reply = preflight("https://a.example.com").send().await;
    let [origin, methods] = ["https://a.example.com", "GET,POST"];
    let expected =
        [Some(origin), Some("true"), Some(methods), Some("x-h"), Some("x-e"), Some("86400")];
    assert_eq!((reply.status, told(&reply)), (200, expected.map(|it| it.map(str::to_owned))));
    let reply = preflight("https://b.example.com").send().await;
    let expected = [None, Some("true"), Some(methods), Some("x-h"), None, Some("86400")];
    assert_eq!((reply.status, told(&reply)), (200, expected.map(|it| it.map(str::to_owned))));
    assert_eq!(app.count(), 0);
}
