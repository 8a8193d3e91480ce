//! Recorded streams of istiod 1.30, played byte for byte to a proxy that was started as Istio's agent starts one: all
//! of it is accepted, in its order, and requests go where the configuration of that mesh sends them.
//!
//! Envoy gets the same without the filters of Istio's own build.
//!
//! The recordings are not part of this repository: see [`crate::suites`].

mod recording;

use std::collections::BTreeSet;
use std::path::Path;

use harness::management::resource;
use harness::pilot_agent::{self, METRICS, READINESS, SDS_SOCKET, STATUS, XDS_SOCKET};
use harness::{Backend, Client, ManagementServer, Program, Proxy, ScriptedManagement, Value, json};
use prost_types::Any;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds::envoy::service::discovery::v3::Resource;
use xds::type_url::ResourceType;
use xds::yaml::Document;

use self::recording::{Player, Recording};
use crate::istiod_policies::mesh::{Mesh, walk};
use crate::istiod_policies::{PRODUCTPAGE, pod};

on_both!(
    a_bootstrap_of_istios_agent_is_taken,
    what_istiod_sends_is_accepted,
    what_istiod_sends_in_increments_is_accepted,
    requests_follow_what_istiod_sends,
);

/// The nodes of both variants.
const NODES: [&str; 6] = [
    "router-ingressgateway",
    "sidecar-dbclient",
    "sidecar-mysqldb",
    "sidecar-productpage",
    "sidecar-reviews-v2",
    "sidecar-scoped-web",
];

/// How the protocol is spoken, as the folders of recordings are named.
const VARIANTS: [(&str, &str); 2] = [("sotw", "GRPC"), ("delta", "DELTA_GRPC")];

async fn a_bootstrap_of_istios_agent_is_taken(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _agent = Backend::echo_at("agent", STATUS.into()).await;
    for (variant, api_type) in VARIANTS {
        let recording = Recording::read(&folder(&mesh, "sidecar-mysqldb"), variant);
        let mut recording = fitting(program, recording);
        let node = recording.node.clone();
        let (proxy, player, _secrets) = start(program, &mesh, &mut recording, api_type).await;
        let told = &player.node;
        for field in ["id", "cluster", "locality"] {
            assert_eq!(told[field], node[field]);
        }
        for field in ["NAMESPACE", "LABELS", "ISTIO_VERSION", "PILOT_SAN", "INSTANCE_IPS"] {
            assert_eq!(told["metadata"][field], node["metadata"][field], "{field}");
        }
        let shown = proxy.admin().get("/stats").send().await.text();
        for line in shown.lines() {
            let shown = ["cluster_manager.", "listener_manager.", "server.", "cluster.xds-grpc;."];
            let ends = ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied"];
            let (name, _) = line.split_once(": ").unwrap();
            let is_shown = shown.iter().any(|it| name.starts_with(it))
                || ends.iter().any(|it| name.ends_with(it))
                || name.starts_with("vhost.") && name.contains(".route.");
            assert!(is_shown, "{line}");
        }
        let metrics = Client::http1(METRICS.into()).get("/stats/prometheus").send().await;
        assert!(metrics.text().contains("\nenvoy_cluster_manager_cds_update_success"));
        assert!(!metrics.text().contains("envoy_listener_downstream_cx_active"));
        let ready = Client::http1(READINESS.into()).get("/healthz/ready").send().await;
        assert_eq!((ready.status, ready.echo().backend()), (200, "agent"));
    }
}

async fn what_istiod_sends_is_accepted(program: Program) {
    for node in NODES.into_iter().chain(["router-ingressgateway-topology"]) {
        everything_is_accepted(program, node, VARIANTS[0]).await;
    }
}

async fn what_istiod_sends_in_increments_is_accepted(program: Program) {
    for node in NODES {
        everything_is_accepted(program, node, VARIANTS[1]).await;
    }
}

async fn everything_is_accepted(program: Program, node: &str, (variant, api_type): (&str, &str)) {
    let Some(mesh) = Mesh::enter() else { return };
    let mut recording = Recording::read(&folder(&mesh, node), variant);
    if node.ends_with("-topology") {
        // Nobody proved who it was, so it got no secrets.
        let proved = Recording::read(&folder(&mesh, NODES[0]), variant);
        recording.take_secrets_of(proved);
    }
    let mut recording = fitting(program, recording);
    let outcome = recording.outcome();
    let (proxy, mut player, _secrets) = start(program, &mesh, &mut recording, api_type).await;
    for (_, responses) in recording.phases.drain(..) {
        player.push(responses).await;
    }
    let names = |kind| {
        let of_kind = outcome.keys().filter(move |(it, _)| *it == kind);
        of_kind.map(|(_, name)| name.clone()).collect::<BTreeSet<String>>()
    };
    let (clusters, listeners) = (names(ResourceType::Cluster), names(ResourceType::Listener));
    // With the ones of the bootstrap.
    proxy
        .until_stats([
            ("cluster_manager.warming_clusters", 0),
            ("cluster_manager.active_clusters", clusters.len() as u64 + 4),
            ("listener_manager.total_listeners_warming", 0),
            ("listener_manager.total_listeners_active", listeners.len() as u64 + 2),
            ("cluster_manager.cds.update_rejected", 0),
            ("listener_manager.lds.update_rejected", 0),
            ("listener_manager.listener_create_failure", 0),
        ])
        .await;
    let dump = proxy.admin().get("/config_dump").send().await.json();
    let part = |kind: &str, list: &str| {
        let ends = |it: &&Value| it["@type"].as_str().unwrap().ends_with(kind);
        let part = dump["configs"].as_array().unwrap().iter().find(ends).unwrap();
        part[list].as_array().cloned().unwrap_or_default()
    };
    let in_use: BTreeSet<String> = part("ListenersConfigDump", "dynamic_listeners")
        .iter()
        .inspect(|it| assert_eq!(it["error_state"], Value::Null, "{node}"))
        .filter(|it| it["active_state"].is_object())
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(in_use, listeners, "{node}");
    let in_use: BTreeSet<String> = part("ClustersConfigDump", "dynamic_active_clusters")
        .iter()
        .map(|it| it["cluster"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(in_use, clusters, "{node}");
    if program == Program::Outrigger {
        for route in part("RoutesConfigDump", "dynamic_route_configs") {
            let name = route["route_config"]["name"].as_str().unwrap().to_owned();
            let sent = &outcome[&(ResourceType::Routes, name)];
            assert_eq!(route["route_config"], xds::json::any_to_json(sent), "{node}");
        }
    }
}

async fn requests_follow_what_istiod_sends(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    mesh.redirect(PRODUCTPAGE);
    let (v1, v2, v3) = (
        Backend::echo_at("v1", pod(25, 9080)).await,
        Backend::echo_at("v2", pod(26, 9080)).await,
        Backend::echo_at("v3", pod(27, 9080)).await,
    );
    let ratings = Backend::echo_at("ratings", pod(24, 9080)).await;
    let client = |address: &str| Client::http1(address.parse().unwrap());
    let reviews = || client("10.96.50.213:9080").get("/").host("reviews");
    let rate = || client("10.96.73.224:9080").get("/ratings/0").host("ratings:9080");
    for (variant, api_type) in VARIANTS {
        let recording = Recording::read(&folder(&mesh, "sidecar-productpage"), variant);
        // The backends here are no sidecars.
        let recording = fitting(program, recording).changed(|body| {
            Some(rewritten(&body, |part| {
                if let Some(fields) = part.as_object_mut() {
                    fields.remove("envoy.transport_socket_match");
                }
            }))
        });
        let mut recording = recording;
        let (proxy, mut player, _secrets) = start(program, &mesh, &mut recording, api_type).await;
        let counts = || [v1.count(), v2.count(), v3.count()];
        let sent = async |calls: usize| {
            let before = counts();
            for _ in 0..calls {
                assert_eq!(reviews().send().await.status, 200);
            }
            let after = counts();
            [0, 1, 2].map(|it| after[it] - before[it])
        };
        let first = sent(200).await;
        assert!(first[0] > 150 && first[1] > 1 && first[2] == 0, "90 to 10: {first:?}");
        for (change, responses) in recording.phases.drain(..) {
            player.push(responses).await;
            match change.as_str() {
                "weight-edit" => {
                    let [one, two, three] = sent(200).await;
                    assert!(one > 60 && two > 60 && three == 0, "50 to 50: {one} {two} {three}");
                }
                "ratings-abort" => {
                    let before = ratings.count();
                    let reply = rate().header("end-user", "jason").send().await;
                    assert_eq!((reply.status, &*reply.text()), (500, "fault filter abort"));
                    assert_eq!(rate().send().await.status, 200);
                    assert_eq!(ratings.count(), before + 1);
                }
                "reviews-jason" => {
                    for (user, version) in [("jason", "v2"), ("other", "v3"), ("jason", "v2")] {
                        let reply = reviews().header("end-user", user).send().await;
                        assert_eq!(reply.echo().backend(), version, "{user}");
                    }
                }
                _ => assert_eq!(reviews().send().await.status, 200, "{change}"),
            }
        }
        drop(proxy);
    }
}

fn folder(mesh: &Mesh, node: &str) -> std::path::PathBuf {
    mesh.recordings.join("default").join(node)
}

/// Starts `program` as Istio's agent does, and plays the beginning of a recording to it.
async fn start(
    program: Program,
    mesh: &Mesh,
    recording: &mut Recording,
    api_type: &str,
) -> (Proxy, Player, (ManagementServer, ScriptedManagement)) {
    let bootstrap = pilot_agent::bootstrap(&recording.node, api_type);
    let secrets = agent_secrets(mesh, recording, &bootstrap.dir().join(SDS_SOCKET));
    let server = ScriptedManagement::start_at(&bootstrap.dir().join(XDS_SOCKET));
    let (_, beginning) = recording.phases.remove(0);
    let serving = async {
        let mut player = Player::on(server.stream().await).await;
        player.play(beginning).await;
        player
    };
    let (proxy, player) = tokio::join!(bootstrap.start(program), serving);
    (proxy, player, (secrets, server))
}

/// What the agent beside the proxy has of all that the recording names: a certificate and roots of the test's own.
fn agent_secrets(mesh: &Mesh, recording: &Recording, socket: &Path) -> ManagementServer {
    let names = std::cell::RefCell::new(BTreeSet::new());
    for body in recording.resources() {
        walk(&mut xds::json::any_to_json(body), &|part| {
            let source = &part["sds_config"]["api_config_source"]["grpc_services"];
            if part.is_object() && source.to_string().contains("sds-grpc") {
                names.borrow_mut().insert(part["name"].as_str().unwrap().to_owned());
            }
        });
    }
    let identity = mesh.identity();
    let secrets = names.into_inner().into_iter().map(|name| {
        let is_certificate = name == "default" || name.starts_with("file-cert:");
        resource::<Secret>(&match is_certificate {
            true => json!({"name": name, "tls_certificate": identity.certificate()}),
            false => {
                let roots = json!({"trusted_ca": {"filename": mesh.pki.root()}});
                json!({"name": name, "validation_context": roots})
            }
        })
    });
    let server = ManagementServer::start_at(socket);
    server.publish(secrets, []);
    server
}

/// What of a recording is something to `program`: filters of Istio's own build are nothing to another Envoy, and the
/// Wasm of a plugin is not here.
fn fitting(program: Program, recording: Recording) -> Recording {
    if program == Program::Outrigger {
        return recording;
    }
    let is_istios = |item: &Value| {
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        name.starts_with("istio.") || name.starts_with("extensions.istio.io/")
    };
    recording.changed(|body| {
        if body.type_url.ends_with("TypedExtensionConfig") {
            return None;
        }
        Some(rewritten(&body, |part| {
            if let Some(items) = part.as_array_mut() {
                items.retain(|item| !is_istios(item));
            }
        }))
    })
}

/// A resource of which every part is changed.
fn rewritten(body: &Any, change: impl Fn(&mut Value)) -> Any {
    // Keys are not shown as they are.
    if body.type_url.ends_with(".Secret") {
        return body.clone();
    }
    let mut value = xds::json::any_to_json(body);
    walk(&mut value, &change);
    let carrier = Document::new("resource", json!({"resource": value}).to_string());
    carrier.read::<Resource>().unwrap().resource.unwrap()
}
