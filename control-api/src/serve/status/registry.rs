//! Services and endpoints, in the form of istiod's `/debug/registryz` and `/debug/endpointz`.

use serde_json::{Map, Value, json};

use crate::model::protocol::Protocol;
use crate::serve::ControlPlane;
use crate::translate::endpoints::Endpoint;
use crate::translate::registry;
use crate::translate::service::{Port, Resolution, Service};

/// Where what Kubernetes tells of is from, and everything else.
fn registry_of(service: &Service) -> &'static str {
    if service.is_kubernetes() { "Kubernetes" } else { "External" }
}

/// istiod's list of services.
pub(super) fn services(plane: &ControlPlane) -> Value {
    let world = plane.world();
    let shown = |it: registry::Registered<'_>| {
        let service = it.service;
        let ports = service.ports.iter().map(
            |port| json!({"name": port.name, "port": port.number, "protocol": protocol(port)}),
        );
        let from = registry_of(service);
        json!({
            "Attributes": {
                "ServiceRegistry": from,
                "Name": service.name,
                "Namespace": service.namespace(),
                "Labels": service.object.metadata.labels,
            },
            "ports": ports.collect::<Vec<_>>(),
            "creationTime": service.object.metadata.creation_timestamp,
            "hostname": service.host,
            "clusterVIPs": {"Addresses": {from: service.addresses}},
            "defaultAddress": service.addresses.first(),
            "Resolution": resolution(service.resolution),
            "MeshExternal": service.external,
        })
    };
    registry::services(&world.mesh).into_iter().map(shown).collect()
}

/// istiod's names.
fn protocol(port: &Port) -> String {
    match port.protocol {
        Protocol::Unknown => "UnsupportedProtocol".to_owned(),
        Protocol::GrpcWeb => "GRPC-Web".to_owned(),
        Protocol::HttpProxy => "HTTP_PROXY".to_owned(),
        other => format!("{other:?}").to_uppercase(),
    }
}

/// istiod's numbers.
fn resolution(of: Resolution) -> u8 {
    match of {
        Resolution::Endpoints => 0,
        Resolution::Dns => 1,
        Resolution::Passthrough => 2,
        Resolution::DnsRoundRobin => 3,
        Resolution::Alias => 4,
        Resolution::DynamicDns => 5,
    }
}

/// istiod's endpoints, by host, namespace and where they are from.
pub(super) fn endpoints(plane: &ControlPlane) -> Value {
    let world = plane.world();
    let mut hosts = Map::new();
    for it in registry::services(&world.mesh) {
        let service = it.service;
        let all = it.ports.iter().flat_map(|(port, all)| all.iter().map(move |it| (port, it)));
        let all: Vec<Value> = all.map(|(port, it)| endpoint(service, port, it)).collect();
        let of_host = hosts.entry(service.host.clone()).or_insert_with(|| json!({}));
        of_host[service.namespace()] = json!({"Shards": {registry_of(service): all}});
    }
    Value::Object(hosts)
}

fn endpoint(service: &Service, port: &Port, endpoint: &Endpoint) -> Value {
    let locality = &endpoint.locality;
    let place = [&locality.region, &locality.zone, &locality.sub_zone].map(String::as_str);
    json!({
        "Addresses": [endpoint.address],
        "EndpointPort": endpoint.port,
        "ServicePortName": port.name,
        "Labels": endpoint.labels,
        "ServiceAccount": endpoint.identity,
        "Locality": {"Label": place.join("/").trim_end_matches('/')},
        "LbWeight": endpoint.weight,
        "TLSMode": if endpoint.sidecar { "istio" } else { "disabled" },
        "Namespace": service.namespace(),
        "HealthStatus": if endpoint.ready == Some(false) { "UNHEALTHY" } else { "HEALTHY" },
    })
}
