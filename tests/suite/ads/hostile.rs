//! Servers that go wrong: whatever they say, what was good stays, the error names what is at fault, and a server that
//! comes to its senses is believed.

use std::time::Duration;

use harness::eventually::eventually_true;
use harness::management::resource;
use harness::{Backend, Bootstrap, Program, Proxy, ScriptedManagement, ScriptedStream, json};
use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use xds::snapshot::Entry;
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

use super::resources::{VARIANTS, ads, cluster, endpoints, listener, managed, routes};
use crate::differences::{Differs, RENEWED_IS_NOT_GONE};

on_both!(
    nonsense_is_refused_and_what_was_good_stays,
    an_empty_push_takes_everything_away,
    what_nobody_asked_for_is_passed_over,
    a_nonce_may_come_twice,
    a_stream_that_ends_again_and_again_is_opened_again,
    a_time_to_live_ends,
    a_time_to_live_is_prolonged,
    a_push_may_be_huge,
);
on_outrigger_only!(
    a_push_that_is_refused_again_and_again_is_answered_slowly because REFUSALS_ARE_PACED,
);

/// A server's side of a stream, and how many responses it has sent.
struct Server {
    stream: ScriptedStream,
    sent: u32,
    /// The version of all responses from here on; none: another one each time.
    version: Option<&'static str>,
}

impl Server {
    async fn on(server: &ScriptedManagement) -> Self {
        Self { stream: server.stream().await, sent: 0, version: None }
    }

    /// A response with these resources, under a new version and nonce.
    fn response(&mut self, kind: ResourceType, resources: Vec<Resource>) -> Response {
        self.sent += 1;
        let (type_url, nonce) = (kind.url().to_owned(), format!("nonce-{}", self.sent));
        let version = self.version.map_or_else(|| self.sent.to_string(), str::to_owned);
        match self.stream.variant {
            Variant::StateOfTheWorld => Response::Sotw(DiscoveryResponse {
                version_info: version,
                resources: resources.into_iter().map(packed).collect(),
                type_url,
                nonce,
                ..DiscoveryResponse::default()
            }),
            Variant::Incremental => Response::Delta(DeltaDiscoveryResponse {
                system_version_info: version,
                resources,
                type_url,
                nonce,
                ..DeltaDiscoveryResponse::default()
            }),
        }
    }

    /// Sends resources; why they are refused, if they are.
    async fn push(&mut self, kind: ResourceType, resources: Vec<Resource>) -> Option<String> {
        let response = self.response(kind, resources);
        self.say(kind, response).await
    }

    async fn say(&mut self, kind: ResourceType, response: Response) -> Option<String> {
        let nonce = response.nonce().to_owned();
        self.stream.say(response);
        loop {
            let request = self.stream.request(kind).await;
            if request.nonce() == nonce {
                return request.error_detail().map(|status| status.message.clone());
            }
        }
    }

    /// Sends what makes a proxy serve, each when it is asked for.
    async fn serve(&mut self, good: [Any; 4]) {
        for body in good {
            let kind = ResourceType::of(&body.type_url).unwrap();
            self.stream.request(kind).await;
            assert_eq!(self.push(kind, vec![named(body, 0)]).await, None, "{kind}");
        }
    }
}

/// As SotW responses have it: itself, unless more is to be said of it.
fn packed(resource: Resource) -> Any {
    match resource {
        Resource { ttl: None, resource: Some(body), .. } => body,
        wrapped => Any::from_msg(&wrapped).unwrap(),
    }
}

/// A resource under its name, with a version.
fn named(body: Any, version: u32) -> Resource {
    let name = Entry::new(body.clone()).unwrap().name().to_string();
    let version = version.to_string();
    Resource { name, version, resource: Some(body), ..Resource::default() }
}

/// A proxy that is served well by a server, and that server.
async fn served(
    program: Program,
    variant: &str,
    app: &Backend,
) -> (Proxy, Server, ScriptedManagement) {
    let server = ScriptedManagement::start();
    let mut bootstrap = Bootstrap::new();
    let main = bootstrap.reserve("main");
    let good = [cluster("one"), endpoints("one", app), listener(main, "x"), routes("one")];
    let serving = async {
        let mut server = Server::on(&server).await;
        server.serve(good).await;
        server
    };
    let bootstrap = managed(bootstrap, &server, variant, &ads());
    let (proxy, stream) = tokio::join!(bootstrap.start(program), serving);
    assert_eq!(proxy.get("/").send().await.status, 200);
    (proxy, stream, server)
}

async fn nonsense_is_refused_and_what_was_good_stays(program: Program) {
    let url = ResourceType::Cluster.url();
    let of = |name: &str, type_url: &str, value: Vec<u8>| Resource {
        name: name.to_owned(),
        version: "9".to_owned(),
        resource: Some(Any { type_url: type_url.to_owned(), value }),
        ..Resource::default()
    };
    let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let one = || named(cluster("one"), 0);
    let timeless = resource::<ClusterMessage>(&json!({"name": "bad", "type": "EDS"}));
    for variant in VARIANTS {
        let app = Backend::echo("app").await;
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        let nonsense = [
            vec![one(), of("garbage", url, vec![0xff; 64])],
            vec![one(), of("half", url, cluster("half").value[..9].to_vec())],
            vec![one(), of("other", listener, Vec::new())],
            vec![one(), of("unknown", "type.googleapis.com/no.such.Thing", vec![1])],
            vec![one(), named(cluster("twice"), 1), named(cluster("twice"), 2)],
            vec![one(), named(timeless.clone(), 1)],
        ];
        let count = nonsense.len() as u64;
        for resources in nonsense {
            let name = resources.last().unwrap().name.clone();
            let refusal = server.push(ResourceType::Cluster, resources).await;
            assert!(refusal.is_some_and(|it| !it.is_empty()), "{variant} {name}");
            assert_eq!(proxy.get("/").send().await.status, 200, "{variant} {name}");
        }
        proxy.until_stat("cluster_manager.cds.update_rejected", |it| it == count).await;
        let good = vec![one(), named(cluster("two"), 1)];
        assert_eq!(server.push(ResourceType::Cluster, good).await, None);
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}

async fn an_empty_push_takes_everything_away(program: Program) {
    let app = Backend::echo("app").await;
    let (proxy, mut server, _place) = served(program, "GRPC", &app).await;
    assert_eq!(server.push(ResourceType::Cluster, vec![]).await, None);
    eventually_true("the cluster to go", async || proxy.get("/").send().await.status == 503).await;
    assert_eq!(server.push(ResourceType::Listener, vec![]).await, None);
    eventually_true("the listener to go", async || proxy.get("/").try_send().await.is_err()).await;
    // To an increment, nothing is nothing.
    let (proxy, mut server, _place) = served(program, "DELTA_GRPC", &app).await;
    assert_eq!(server.push(ResourceType::Cluster, vec![]).await, None);
    assert_eq!(server.push(ResourceType::Listener, vec![]).await, None);
    assert_eq!(proxy.get("/").send().await.status, 200);
}

async fn what_nobody_asked_for_is_passed_over(program: Program) {
    for variant in VARIANTS {
        let app = Backend::echo("app").await;
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        let secrets = server.response(ResourceType::Secret, vec![]);
        let mut names = server.response(ResourceType::Cluster, vec![]);
        let unknown = "type.googleapis.com/istio.networking.nds.v1.NameTable".to_owned();
        match &mut names {
            Response::Sotw(it) => it.type_url = unknown,
            Response::Delta(it) => it.type_url = unknown,
        }
        for response in [secrets, names] {
            server.stream.say(response);
        }
        // The next that is answered is this one.
        let good = server.response(ResourceType::Cluster, vec![named(cluster("one"), 0)]);
        let nonce = good.nonce().to_owned();
        server.stream.say(good);
        let request: Request = server.stream.any_request().await;
        assert_eq!((request.nonce(), request.error_detail()), (&*nonce, None), "{variant}");
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}

async fn a_nonce_may_come_twice(program: Program) {
    for variant in VARIANTS {
        let (app, other) = (Backend::echo("app").await, Backend::echo("other").await);
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        let first =
            server.response(ResourceType::Endpoints, vec![named(endpoints("one", &app), 1)]);
        assert_eq!(server.say(ResourceType::Endpoints, first).await, None);
        server.sent -= 1;
        let again = named(endpoints("one", &other), 2);
        assert_eq!(server.push(ResourceType::Endpoints, vec![again]).await, None);
        eventually_true("the second one", async || {
            assert_eq!(proxy.get("/").send().await.status, 200);
            other.count() > 0
        })
        .await;
    }
}

async fn a_stream_that_ends_again_and_again_is_opened_again(program: Program) {
    for variant in VARIANTS {
        let app = Backend::echo("app").await;
        let (proxy, server, place) = served(program, variant, &app).await;
        drop(server);
        for _ in 0..3 {
            let mut stream = place.stream().await;
            stream.any_request().await;
            drop(stream);
            assert_eq!(proxy.get("/").send().await.status, 200);
        }
        let other = Backend::echo("other").await;
        let mut server = Server { stream: place.stream().await, sent: 50, version: None };
        server.stream.request(ResourceType::Endpoints).await;
        let changed = named(endpoints("one", &other), 50);
        assert_eq!(server.push(ResourceType::Endpoints, vec![changed]).await, None);
        eventually_true("what has changed", async || {
            assert_eq!(proxy.get("/").send().await.status, 200);
            other.count() > 0
        })
        .await;
    }
}

/// How long what is mortal lives.
const LIFE: Duration = Duration::from_millis(1500);

/// The listener with a time to live, or without a body what renews that.
fn mortal(body: Option<Any>) -> Resource {
    Resource {
        name: "main".to_owned(),
        version: "7".to_owned(),
        resource: body,
        ttl: Some(prost_types::Duration::try_from(LIFE).unwrap()),
        ..Resource::default()
    }
}

async fn a_time_to_live_ends(program: Program) {
    for variant in VARIANTS {
        let app = Backend::echo("app").await;
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        let address = proxy.address("main");
        let body = mortal(Some(listener(address, "mortal")));
        assert_eq!(server.push(ResourceType::Listener, vec![body]).await, None);
        eventually_true("its end", async || proxy.get("/").try_send().await.is_err()).await;
        let reborn = named(listener(address, "reborn"), 8);
        assert_eq!(server.push(ResourceType::Listener, vec![reborn]).await, None);
        let table = vec![named(routes("one"), 8)];
        assert_eq!(server.push(ResourceType::Routes, table).await, None);
        eventually_true("another one", async || {
            proxy.get("/").try_send().await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    }
}

async fn a_time_to_live_is_prolonged(program: Program) {
    for variant in VARIANTS {
        if variant == "GRPC" && program.differs(RENEWED_IS_NOT_GONE) {
            continue;
        }
        let app = Backend::echo("app").await;
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        // What is renewed has the version that it had.
        server.version = Some("7");
        let body = mortal(Some(listener(proxy.address("main"), "mortal")));
        assert_eq!(server.push(ResourceType::Listener, vec![body]).await, None);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < LIFE * 2 {
            tokio::time::sleep(LIFE / 5).await;
            assert_eq!(server.push(ResourceType::Listener, vec![mortal(None)]).await, None);
            let reply = proxy.get("/").try_send().await;
            assert!(reply.is_ok_and(|it| it.status == 200), "{variant} {:?}", begun.elapsed());
        }
        eventually_true("its end", async || proxy.get("/").try_send().await.is_err()).await;
    }
}

async fn a_push_may_be_huge(program: Program) {
    let filler = "x".repeat(8 << 10);
    let many = (0..700).map(|number| {
        let body = resource::<ClusterMessage>(&json!({
            "name": format!("cluster-{number}"), "type": "STATIC",
            "metadata": {"filter_metadata": {"filler": {"text": filler}}},
        }));
        named(body, 1)
    });
    let many: Vec<Resource> = many.chain([named(cluster("one"), 0)]).collect();
    for variant in VARIANTS {
        let app = Backend::echo("app").await;
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        assert_eq!(server.push(ResourceType::Cluster, many.clone()).await, None);
        proxy.until_stat("cluster_manager.active_clusters", |count| count == 702).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}

async fn a_push_that_is_refused_again_and_again_is_answered_slowly(program: Program) {
    for variant in VARIANTS {
        let app = Backend::echo("app").await;
        let (proxy, mut server, _place) = served(program, variant, &app).await;
        let bad = resource::<ClusterMessage>(&json!({"name": "bad", "type": "EDS"}));
        let begun = tokio::time::Instant::now();
        for _ in 0..3 {
            let both = vec![named(cluster("one"), 0), named(bad.clone(), 1)];
            let refusal = server.push(ResourceType::Cluster, both).await;
            let expected = "bad: eds_cluster_config: required by a cluster of type EDS";
            assert_eq!(refusal.as_deref(), Some(expected));
        }
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        proxy.until_stat("cluster_manager.cds.update_rejected", |count| count == 3).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}
