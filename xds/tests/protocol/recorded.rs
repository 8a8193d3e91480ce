//! The recorded streams of a real istiod, through the client half. They are not part of this repository: they are
//! looked for in `SUITES_DIR`, else beside the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use prost::Message;
use prost_types::Any;
use xds::client::{self, Client};
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

#[test]
fn a_recorded_istiod_is_followed_to_the_end() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let suites = std::env::var_os("SUITES_DIR").map_or_else(beside, PathBuf::from);
    let root = suites.join("istiod-1.30-ads");
    if !root.exists() {
        assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no {}", root.display());
        // Not eprintln!, which the test runner swallows when a test passes.
        let skipped = format!("SKIPPED: no {}; set SUITES_DIR to where it is", root.display());
        let _ = writeln!(std::io::stderr(), "{skipped}");
        return;
    }
    let mut streams = 0;
    for run in ["default", "mx-off"] {
        for node in folders(&root.join(run)) {
            for (folder, variant) in
                [("sotw", Variant::StateOfTheWorld), ("delta", Variant::Incremental)]
            {
                let responses = responses(&node.join(folder), variant);
                if !responses.is_empty() {
                    follow(variant, responses);
                    streams += 1;
                }
            }
        }
    }
    assert!(streams > 15, "{streams} streams");
}

/// Every response is taken whole and acknowledged; what is held in the end is what the responses said.
fn follow(variant: Variant, responses: Vec<Response>) {
    let options = client::Options {
        variant,
        node: Node::default(),
        node_on_first_message_only: true,
        fetch_timeout: client::FETCH_TIMEOUT,
    };
    let (mut client, now) = (Client::new(options), Instant::now());
    client.connected();
    for kind in ResourceType::ALL {
        client.subscribe(kind, ["*"], now);
    }
    while client.request(now).is_some() {}
    let mut expected: BTreeMap<ResourceType, BTreeMap<String, Any>> = BTreeMap::new();
    let mut held = expected.clone();
    for response in responses {
        let Some(kind) = ResourceType::of(response.type_url()) else {
            assert!(client.receive(response).is_none(), "nobody asked");
            continue;
        };
        say(kind, &response, expected.entry(kind).or_default());
        let nonce = response.nonce().to_owned();
        let update = client.receive(response).unwrap();
        let held = held.entry(kind).or_default();
        for received in &update.resources {
            let old = held.insert(received.name.clone(), received.body.clone());
            assert_eq!(received.unchanged, old.as_ref() == Some(&received.body));
        }
        update.removed.iter().for_each(|name| drop(held.remove(name)));
        let version = update.version.clone();
        client.settle(update, vec![], now);
        let request = client.request(now).unwrap();
        assert_eq!((request.nonce(), request.error_detail()), (&*nonce, None));
        if let Request::Sotw(request) = request {
            assert_eq!(request.version_info, version);
        }
        assert!(client.request(now).is_none());
    }
    assert_eq!(held, expected);
    for (kind, resources) in expected {
        let names: BTreeSet<&str> = client.held(kind).map(|(name, _)| name).collect();
        assert_eq!(names, resources.keys().map(String::as_str).collect(), "{kind}");
    }
}

/// What the client should make of a response, told in another way.
fn say(kind: ResourceType, response: &Response, all: &mut BTreeMap<String, Any>) {
    match response {
        Response::Sotw(response) => {
            if kind.is_full_state() {
                all.clear();
            }
            let named = |any: &Any| (xds::resource::name(any).unwrap(), any.clone());
            all.extend(response.resources.iter().map(named));
        }
        Response::Delta(response) => {
            let resources = response.resources.iter().cloned();
            all.extend(resources.map(|wrapped| (wrapped.name, wrapped.resource.unwrap())));
            response.removed_resources.iter().for_each(|name| drop(all.remove(name)));
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn responses(folder: &Path, variant: Variant) -> Vec<Response> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let files = folders(folder).into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "pb"));
    let read = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        match variant {
            Variant::StateOfTheWorld => Response::Sotw(DiscoveryResponse::decode(&*bytes).unwrap()),
            Variant::Incremental => {
                Response::Delta(DeltaDiscoveryResponse::decode(&*bytes).unwrap())
            }
        }
    };
    files.map(read).collect()
}
