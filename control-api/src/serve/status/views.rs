//! What is told, as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use xds::type_url::{ResourceType, Variant};

use crate::model::object::TypeMeta;
use crate::serve::ControlPlane;
use crate::serve::cache::counts;
use crate::serve::fleet::{Client, Kind, State};
use crate::translate::proxy::Role;
use crate::validate::code::Level;

/// The mesh that is served, and how far it has come.
pub(super) fn mesh(plane: &ControlPlane) -> Value {
    let world = plane.world();
    let (connected, settled) = plane.fleet().settled(world.number);
    let of = |level| world.findings.iter().filter(|it| it.level() == level).count();
    json!({
        "number": world.number,
        "publishedAt": time(world.at),
        "objects": world.mesh.objects().count(),
        "sources": plane.sources(),
        "findings": {
            "errors": of(Level::Error), "warnings": of(Level::Warning), "infos": of(Level::Info),
        },
        "proxies": {"connected": connected, "synced": settled},
    })
}

/// What is wrong with it.
pub(super) fn findings(plane: &ControlPlane) -> Value {
    crate::analyze::json::list(&plane.world().findings)
}

/// Every object, and where it stands.
pub(super) fn objects(plane: &ControlPlane) -> Value {
    let world = plane.world();
    let objects = world.mesh.objects().map(|object| {
        json!({
            "apiVersion": api_version(&object.type_meta),
            "kind": object.type_meta.kind,
            "namespace": object.metadata.namespace,
            "name": object.metadata.name,
            "file": object.origin.file.name,
            "line": object.origin.line,
        })
    });
    objects.collect()
}

fn api_version(of: &TypeMeta) -> String {
    if of.group.is_empty() { of.version.clone() } else { format!("{}/{}", of.group, of.version) }
}

/// The last pushes, the newest first.
pub(super) fn pushes(plane: &ControlPlane) -> Value {
    let pushes = plane.pushes().recent().into_iter().map(|push| {
        json!({
            "mesh": push.number,
            "publishedAt": time(push.at),
            "objects": push.objects,
            "proxies": {"connected": push.proxies, "synced": push.settled},
            "seconds": push.took.map(|took| took.as_secs_f64()),
            "responses": push.responses,
            "bytes": push.bytes,
        })
    });
    pushes.collect()
}

/// Everyone who is connected.
pub(super) fn proxies(plane: &ControlPlane) -> Value {
    plane.fleet().clients().iter().map(client).collect()
}

/// One proxy.
pub(super) fn client(client: &Client) -> Value {
    let kinds = client.kinds.iter().map(|(kind, state)| (kind.to_string(), of_kind(state)));
    let told = client.plan.told();
    let told = told.borrow();
    let resources: Map<String, Value> =
        counts(&told.snapshot).map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    json!({
        "name": client.short_name(),
        "node": client.node,
        "role": match client.proxy.role { Role::Sidecar => "sidecar", Role::Router => "router" },
        "namespace": client.proxy.namespace,
        "serviceAccount": client.proxy.service_account,
        "addresses": client.proxy.addresses,
        "labels": client.proxy.labels,
        "clusterId": client.cluster_id,
        "version": client.version,
        "peer": client.peer.map(|peer| peer.to_string()),
        "variant": match client.variant {
            Variant::StateOfTheWorld => "sotw",
            Variant::Incremental => "delta",
        },
        "connectedAt": time(client.connected_at),
        "mesh": client.settled,
        "computedMesh": told.number,
        "xds": kinds.collect::<Map<_, _>>(),
        "resources": resources,
    })
}

fn of_kind(kind: &Kind) -> Value {
    let rejected = kind.rejected.iter().map(|it| json!({"name": it.name, "reason": it.reason}));
    json!({
        "status": kind.state().words(),
        "since": kind.since().map(time),
        "sent": kind.sent,
        "acked": kind.acked,
        "responses": kind.responses,
        "bytes": kind.bytes,
        "nacks": kind.nacks,
        "error": kind.error,
        "rejected": rejected.collect::<Vec<_>>(),
    })
}

/// istiod's `SyncStatus` list. Versions stand where istiod has nonces: what is accepted is what was sent.
pub(super) fn syncz(plane: &ControlPlane) -> Value {
    let kinds = [
        ("cluster", ResourceType::Cluster),
        ("listener", ResourceType::Listener),
        ("route", ResourceType::Routes),
        ("endpoint", ResourceType::Endpoints),
        ("extensionconfig", ResourceType::ExtensionConfig),
    ];
    let status = |client: &Client| {
        let mut status = Map::new();
        let mut put = |key: String, value: &str| {
            if !value.is_empty() {
                status.insert(key, json!(value));
            }
        };
        put("cluster_id".into(), &client.cluster_id);
        put("proxy".into(), &client.node);
        put("istio_version".into(), &client.version);
        for (name, kind) in kinds {
            let Some(kind) = client.kinds.get(&kind) else { continue };
            put(format!("{name}_sent"), &kind.sent);
            let accepted = if kind.state() == State::Error { "" } else { &kind.acked };
            put(format!("{name}_acked"), accepted);
        }
        Value::Object(status)
    };
    plane.fleet().clients().iter().map(status).collect()
}

/// istiod's `AdsClients`.
pub(super) fn adsz(plane: &ControlPlane) -> Value {
    all(plane, |client| {
        let mut shown = connection(client);
        shown["labels"] = json!(client.proxy.labels);
        shown["watches"] = client.kinds.keys().map(ToString::to_string).collect();
        shown
    })
}

/// The same without what each says and asks for.
pub(super) fn connections(plane: &ControlPlane) -> Value {
    all(plane, connection)
}

fn all(plane: &ControlPlane, view: impl Fn(&Client) -> Value) -> Value {
    let clients: Vec<Value> = plane.fleet().clients().iter().map(view).collect();
    json!({"totalClients": clients.len(), "clients": clients})
}

fn connection(client: &Client) -> Value {
    json!({
        "connectionId": client.node,
        "connectedAt": time(client.connected_at),
        "address": client.peer.map(|peer| peer.to_string()),
    })
}

/// Seconds since 1970, with fractions.
fn time(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64())
}
