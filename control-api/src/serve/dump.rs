//! What a proxy is told, in the form of Envoy's `/config_dump`.

use serde_json::{Value, json};
use xds::json::any_to_json;
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::ResourceType;

/// Everything a proxy is told; private keys are left out.
pub fn config_dump(snapshot: &Snapshot) -> Value {
    let of = |kind: ResourceType| {
        let set = snapshot.set(kind);
        set.into_iter().flat_map(|set| set.entries().values()).map(std::convert::AsRef::as_ref)
    };
    let version = |kind| snapshot.set(kind).map(|set| set.version().to_string());
    let dynamic = |field: &'static str| move |entry: &Entry| json!({"version_info": &**entry.version(), field: any_to_json(entry.body())});
    let listener = |entry: &Entry| {
        let state = dynamic("listener")(entry);
        json!({"name": &**entry.name(), "active_state": state})
    };
    let secret = |entry: &Entry| {
        let mut secret = dynamic("secret")(entry);
        secret["name"] = json!(&**entry.name());
        secret
    };
    json!({"configs": [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "version_info": version(ResourceType::Cluster),
            "dynamic_active_clusters": of(ResourceType::Cluster).map(dynamic("cluster")).collect::<Vec<_>>(),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "version_info": version(ResourceType::Listener),
            "dynamic_listeners": of(ResourceType::Listener).map(listener).collect::<Vec<_>>(),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": of(ResourceType::Routes).map(dynamic("route_config")).collect::<Vec<_>>(),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs": of(ResourceType::Endpoints).map(dynamic("endpoint_config")).collect::<Vec<_>>(),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets": of(ResourceType::Secret).map(secret).collect::<Vec<_>>(),
        },
    ]})
}
