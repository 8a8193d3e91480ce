//! The other side may send anything: neither half panics, and neither speaks without end.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use xds::client::{self, Client};
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds::server::{self, Session};
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

use crate::world::{BOTH, KINDS, name, resource};

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..4_u8).prop_map(|number| name(number).to_owned()),
        (0..4_u8).prop_map(|number| number.to_string()),
        Just(String::new()),
    ]
}

fn kind() -> impl Strategy<Value = ResourceType> {
    proptest::sample::select(KINDS.as_slice())
}

prop_compose! {
    fn offered()(
        (kind, name, content) in (kind(), word(), 0..3_u8),
        (outer, version) in (word(), word()),
        (aliases, seconds) in (vec(word(), 0..2), proptest::option::of(-2..3_i64)),
        empty: bool,
    ) -> Resource {
        let ttl = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let body = (!empty).then(|| resource(kind, &name, content));
        Resource { name: outer, version, aliases, resource: body, ttl, ..Resource::default() }
    }
}

prop_compose! {
    fn responses()(
        kind in kind(),
        (version, nonce) in (word(), word()),
        (resources, removed) in (vec(offered(), 0..4), vec(word(), 0..3)),
        wrapped: bool,
    ) -> [Response; 2] {
        let type_url = kind.url().to_owned();
        let pack = |resource: &Resource| match &resource.resource {
            Some(body) if !wrapped => body.clone(),
            _ => prost_types::Any::from_msg(resource).unwrap(),
        };
        [
            Response::Sotw(DiscoveryResponse {
                version_info: version.clone(),
                resources: resources.iter().map(pack).collect(),
                type_url: type_url.clone(),
                nonce: nonce.clone(),
                ..DiscoveryResponse::default()
            }),
            Response::Delta(DeltaDiscoveryResponse {
                system_version_info: version,
                resources,
                type_url,
                removed_resources: removed,
                nonce,
                ..DeltaDiscoveryResponse::default()
            }),
        ]
    }
}

prop_compose! {
    fn requests()(
        kind in kind(),
        (version, nonce) in (word(), word()),
        (names, others, known) in (vec(word(), 0..3), vec(word(), 0..3), vec(word(), 0..3)),
        refuses: bool,
    ) -> [Request; 2] {
        let (type_url, node) = (kind.url().to_owned(), Some(Node::default()));
        let error_detail = refuses.then(Default::default);
        [
            Request::Sotw(DiscoveryRequest {
                version_info: version.clone(),
                node: node.clone(),
                resource_names: names.clone(),
                type_url: type_url.clone(),
                response_nonce: nonce.clone(),
                error_detail: error_detail.clone(),
                ..DiscoveryRequest::default()
            }),
            Request::Delta(DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: names,
                resource_names_unsubscribe: others,
                initial_resource_versions: known.into_iter().map(|name| (name, version.clone())).collect(),
                response_nonce: nonce,
                error_detail,
                ..DeltaDiscoveryRequest::default()
            }),
        ]
    }
}

fn client(variant: Variant, now: Instant) -> Client {
    let mut client = Client::new(client::Options {
        variant,
        node: Node::default(),
        node_on_first_message_only: true,
        fetch_timeout: client::FETCH_TIMEOUT,
    });
    for kind in KINDS {
        client.subscribe(kind, if kind.has_wildcard() { ["*"] } else { ["a"] }, now);
    }
    client.connected();
    client
}

proptest! {
    #[test]
    fn a_client_bears_any_server(said in vec((responses(), word(), 0..5_u64), 0..20)) {
        for (variant, at) in [(BOTH[0], 0), (BOTH[1], 1)] {
            let mut now = Instant::now();
            let mut client = client(variant, now);
            for (responses, name, seconds) in &said {
                let before: usize = KINDS.iter().map(|kind| client.held(*kind).count()).sum();
                if let Some(update) = client.receive(responses[at].clone()) {
                    let removed = update.removed.len();
                    client.settle(update, vec![], now);
                    let after: usize = KINDS.iter().map(|kind| client.held(*kind).count()).sum();
                    prop_assert!(after + removed >= before, "only what is removed goes");
                }
                client.subscribe(KINDS[1], [name], now);
                now += Duration::from_secs(*seconds);
                client.lapsed(now);
                let answers = std::iter::from_fn(|| client.request(now)).take(20).count();
                prop_assert!(answers < 20);
                client.unsubscribe(KINDS[1], [name]);
            }
        }
    }

    #[test]
    fn a_server_bears_any_client(said in vec((requests(), kind(), 0..3_u8, 0..5_u64), 0..20)) {
        for (variant, at) in [(BOTH[0], 0), (BOTH[1], 1)] {
            let mut now = Instant::now();
            let options = server::Options {
                variant,
                only: None,
                control_plane: String::new(),
                patience: server::PATIENCE,
            };
            let mut session = Session::new(options);
            for (requests, kind, number, seconds) in &said {
                let _ = session.receive(requests[at].clone(), now);
                let entry = Entry::new(resource(*kind, name(*number), *number));
                let snapshot = Snapshot::from_iter(entry.ok().map(std::sync::Arc::new));
                now += Duration::from_secs(*seconds);
                let answers = std::iter::from_fn(|| session.respond(&snapshot, now)).take(20).count();
                prop_assert!(answers < 20);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let now = Instant::now();
        let sotw = DiscoveryResponse::decode(&*bytes).map(Response::Sotw);
        let delta = DeltaDiscoveryResponse::decode(&*bytes).map(Response::Delta);
        for mut response in sotw.into_iter().chain(delta) {
            let url = match &mut response {
                Response::Sotw(response) => &mut response.type_url,
                Response::Delta(response) => &mut response.type_url,
            };
            KINDS[0].url().clone_into(url);
            let mut client = client(BOTH[0], now);
            if let Some(update) = client.receive(response) {
                client.settle(update, vec![], now);
            }
        }
    }
}
