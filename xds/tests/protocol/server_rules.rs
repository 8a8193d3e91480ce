//! Rules a server follows, and what comes of them between the two.

use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;
use xds::client::{self, Cause, Client, Lapse, Rejection};
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds::server::{self, Heard, Session, Violation};
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::ResourceType::{self, Cluster, Endpoints, Listener, Routes, VirtualHost};
use xds::type_url::Variant;
use xds::wire::Request;

use crate::world::{BAD, BOTH, World, resource};

#[test]
fn a_server_does_not_repeat_what_was_refused() {
    for variant in BOTH {
        let mut world = World::new(variant);
        world.put(Listener, "x", BAD);
        world.put(Listener, "y", 1);
        world.subscribe(Listener, "*");
        world.rest();
        assert_eq!(world.messages, 3, "question, answer, NACK: {:#?}", world.log);
        let standing = world.session.as_ref().unwrap().standing(Listener).unwrap();
        assert_eq!((standing.nacks, standing.error), (1, Some("x: bad")));
        assert_eq!(standing.rejected, [Rejection { name: "x".into(), reason: "bad".into() }]);
        world.assert_in_step();
        let before = world.now;
        world.put(Listener, "x", 2);
        world.rest();
        assert_eq!(world.now, before, "a correction does not wait");
        world.assert_in_step();
    }
}

#[test]
fn a_server_slows_down_when_one_change_after_the_other_is_refused() {
    let mut world = World::new(Variant::Incremental);
    world.subscribe(Listener, "*");
    world.put(Listener, "x", BAD);
    world.rest();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let before = world.now;
        world.take(Listener, "x");
        world.put(Listener, "x", 1);
        world.put(Listener, "x", BAD);
        world.put(Listener, &format!("y{}", waits.len()), BAD);
        world.rest();
        waits.push((world.now - before).as_millis());
    }
    assert_eq!(waits, [500, 1000, 2000, 4000]);
}

#[test]
fn an_unchanged_client_that_comes_back_is_sent_nothing() {
    for variant in BOTH {
        let mut world = World::new(variant);
        for kind in [Cluster, Listener] {
            world.put(kind, "x", 1);
            world.subscribe(kind, "*");
        }
        world.rest();
        world.connect();
        let before = world.messages;
        world.rest();
        assert_eq!(world.messages - before, 2, "two questions: {:#?}", world.log);
        world.put(Cluster, "y", 1);
        world.take(Listener, "x");
        world.connect();
        world.rest();
        world.assert_in_step();
    }
}

/// What went over the wire since the last look, without requests.
fn pushes(world: &mut World) -> Vec<String> {
    let all = std::mem::take(&mut world.log).into_iter();
    let of_server = all.filter_map(|line| Some(line.strip_prefix("<- ")?.to_owned()));
    of_server
        .map(|line| {
            line.split(' ')
                .filter(|word| !word.contains("n=") && !word.contains("v="))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

fn a_mesh(variant: Variant) -> World {
    let mut world = World::new(variant);
    for (kind, name) in [(Cluster, "old"), (Endpoints, "old"), (Listener, "l"), (Routes, "r")] {
        world.put(kind, name, 1);
    }
    world.subscribe(Cluster, "*");
    world.subscribe(Listener, "*");
    world.subscribe(Endpoints, "old");
    world.subscribe(Routes, "r");
    world.rest();
    world.assert_in_step();
    pushes(&mut world);
    world
}

#[test]
fn a_push_makes_before_it_breaks() {
    for variant in BOTH {
        let mut world = a_mesh(variant);
        for (kind, name) in [(Cluster, "new"), (Endpoints, "new"), (Routes, "r")] {
            world.put(kind, name, 2);
        }
        world.take(Cluster, "old");
        world.take(Endpoints, "old");
        world.speak();
        let cluster = if variant == Variant::Incremental {
            r#"CDS ["new=2"] -[]"#
        } else {
            r#"CDS ["new=2", "old=1"]"#
        };
        assert_eq!(
            pushes(&mut world),
            [cluster],
            "routes wait for the endpoints of the new cluster"
        );
        world.listen();
        world.subscribe(Endpoints, "new");
        world.rest();
        let told = pushes(&mut world);
        let position =
            |what: &str| told.iter().position(|line| line.starts_with(what)).expect(what);
        assert!(position(r#"EDS ["new=2"]"#) < position(r#"RDS ["r=2"]"#), "{told:?}");
        let gone =
            if variant == Variant::Incremental { r#"CDS [] -["old"]"# } else { r#"CDS ["new=2"]"# };
        assert!(position("RDS") < position(gone), "{told:?}");
        world.assert_in_step();
    }
}

#[test]
fn a_cluster_that_may_still_be_used_is_not_taken_away() {
    for variant in BOTH {
        let mut world = a_mesh(variant);
        world.put(Cluster, "new", 2);
        world.take(Cluster, "old");
        world.put(Routes, "r", BAD);
        world.rest();
        assert!(world.uses.contains_key(&(Cluster, "old".into())), "its routes were refused");
        world.put(Routes, "r", 3);
        world.rest();
        assert!(!world.uses.contains_key(&(Cluster, "old".into())));
        world.assert_in_step();
    }
}

#[test]
fn a_cluster_that_changes_gets_its_endpoints_again() {
    for variant in BOTH {
        let mut world = a_mesh(variant);
        world.put(Cluster, "old", 2);
        world.rest();
        let told = pushes(&mut world);
        assert!(told[0].starts_with("CDS") && told[1].starts_with("EDS"), "{told:?}");
    }
}

#[test]
fn others_wait_for_an_answer_only_for_so_long() {
    let mut world = a_mesh(Variant::StateOfTheWorld);
    world.put(Cluster, "new", 2);
    world.put(Routes, "r", 2);
    world.speak();
    assert_eq!(pushes(&mut world).len(), 1);
    world.to_client.clear();
    world.now += server::PATIENCE - Duration::from_millis(1);
    world.speak();
    assert_eq!(pushes(&mut world), [""; 0]);
    let next = world.session.as_ref().unwrap().deadline(world.now).unwrap();
    assert_eq!(next - world.now, Duration::from_millis(1));
    world.now = next;
    world.speak();
    assert_eq!(pushes(&mut world), [r#"RDS ["r=2"]"#]);
}

#[test]
fn a_name_given_up_below_a_wildcard_is_answered() {
    let mut world = World::new(Variant::Incremental);
    world.put(Listener, "x", 1);
    world.subscribe(Listener, "*");
    world.subscribe(Listener, "x");
    world.subscribe(Listener, "y");
    world.rest();
    pushes(&mut world);
    world.unsubscribe(Listener, "x");
    world.unsubscribe(Listener, "y");
    world.rest();
    assert_eq!(pushes(&mut world), [r#"LDS ["x=1"] -["y"]"#]);
    world.assert_in_step();
}

#[test]
fn the_first_answer_to_a_wildcard_comes_even_if_there_is_nothing() {
    for variant in BOTH {
        let mut world = World::new(variant);
        world.subscribe(Listener, "*");
        world.rest();
        assert_eq!(world.messages, 3, "question, answer, ACK");
    }
}

#[test]
fn an_alias_finds_its_resource_and_an_unknown_one_is_answered_as_such() {
    let host =
        xds::envoy::config::route::v3::VirtualHost { name: "t/host".into(), ..Default::default() };
    let entry = Entry::new(Any::from_msg(&host).unwrap()).unwrap();
    let entry = Arc::new(entry.with_aliases(vec!["t/host.local".into()]));
    let snapshot = Snapshot::from_iter([entry]);
    let now = World::new(Variant::Incremental).now;
    let (mut client, mut session) = alone(Variant::Incremental, &[]);
    client.subscribe(VirtualHost, ["t/host.local", "t/none"], now);
    session.receive(client.request(now).unwrap(), now).unwrap();
    let update = client.receive(session.respond(&snapshot, now).unwrap()).unwrap();
    assert_eq!(update.resources[0].name, "t/host");
    assert!(update.resources.len() == 1 && update.removed.iter().all(|name| name == "t/none"));
    client.settle(update, vec![], now);
    client.unsubscribe(VirtualHost, ["t/host.local"]);
    assert_eq!(client.held(VirtualHost).count(), 0);
}

/// A client without anything, and the session of its stream.
fn alone(variant: Variant, features: &[&str]) -> (Client, Session) {
    let client_features = features.iter().map(|feature| (*feature).to_owned()).collect();
    let node = Node { id: "node".into(), client_features, ..Node::default() };
    let fetch_timeout = Duration::ZERO;
    let options =
        client::Options { variant, node, node_on_first_message_only: true, fetch_timeout };
    let mut client = Client::new(options);
    client.connected();
    let options = server::Options {
        variant,
        only: None,
        control_plane: "us".into(),
        patience: server::PATIENCE,
    };
    (client, Session::new(options))
}

#[test]
fn a_resource_lives_as_long_as_the_server_says_so() {
    let ttl = Duration::from_secs(9);
    for (variant, kind) in
        [(BOTH[0], Endpoints), (BOTH[1], Endpoints), (BOTH[0], Listener), (BOTH[1], Listener)]
    {
        let (mut client, mut session) = alone(variant, &[]);
        let entry = |name: &str| Entry::new(resource(kind, name, 1)).unwrap();
        let snapshot =
            Snapshot::from_iter([Arc::new(entry("mortal").with_ttl(ttl)), Arc::new(entry("not"))]);
        let mut now = World::new(variant).now;
        client.subscribe(kind, ["mortal", "not"], now);
        let exchange = |client: &mut Client, session: &mut Session, now| {
            let mut responses = 0;
            loop {
                while let Some(request) = client.request(now) {
                    session.receive(request, now).unwrap();
                }
                let Some(response) = session.respond(&snapshot, now) else { return responses };
                let update = client.receive(response).unwrap();
                assert!(update.removed.is_empty() && update.withheld.is_empty());
                client.settle(update, vec![], now);
                responses += 1;
            }
        };
        assert_eq!(exchange(&mut client, &mut session, now), 1);
        for _ in 0..5 {
            now += ttl / 3;
            assert_eq!(session.deadline(now - Duration::from_nanos(1)), Some(now));
            assert_eq!(exchange(&mut client, &mut session, now), 1, "one heartbeat");
            assert!(client.lapsed(now).is_empty());
        }
        assert_eq!(client.standing(kind).unwrap().nacks, 0);
        now += ttl;
        let lapse = Lapse { kind, name: "mortal".into(), cause: Cause::Expired };
        assert_eq!(client.lapsed(now), [lapse], "{variant:?} {kind}");
        assert_eq!(client.held(kind).count(), 1);
    }
}

#[test]
fn a_session_follows_the_protocol_or_ends() {
    let now = World::new(BOTH[0]).now;
    let ask = |url: &str, node: Option<Node>| {
        Request::Sotw(DiscoveryRequest { type_url: url.into(), node, ..Default::default() })
    };
    let node = || Some(Node { id: "n".into(), ..Node::default() });
    let mut session = alone(BOTH[0], &[]).1;
    assert_eq!(session.receive(ask(Cluster.url(), None), now), Err(Violation::NoNode));
    assert_eq!(session.receive(ask("", node()), now), Err(Violation::NoType));
    assert_eq!(session.receive(ask(Cluster.url(), None), now), Ok(Heard::Asked(Cluster)));
    let name_table = "type.googleapis.com/istio.networking.nds.v1.NameTable";
    assert_eq!(session.receive(ask(name_table, None), now), Ok(Heard::Unknown(name_table.into())));
    let other = Request::Delta(DeltaDiscoveryRequest::default());
    assert_eq!(session.receive(other, now), Err(Violation::WrongVariant));

    let mut secrets = Session::new(server::Options {
        variant: BOTH[0],
        only: Some(ResourceType::Secret),
        control_plane: String::new(),
        patience: server::PATIENCE,
    });
    assert_eq!(secrets.receive(ask("", node()), now), Ok(Heard::Asked(ResourceType::Secret)));
    let url = Cluster.url().to_owned();
    assert_eq!(secrets.receive(ask(&url, None), now), Err(Violation::WrongType(url)));
}

#[test]
fn an_envoy_that_answers_for_clusters_when_they_are_warm_gets_their_endpoints() {
    let mut world = World::new(Variant::StateOfTheWorld);
    world.put(Cluster, "c", 1);
    world.put(Endpoints, "c", 1);
    world.put(Listener, "l", 1);
    world.subscribe(Cluster, "*");
    world.subscribe(Listener, "*");
    world.speak();
    while world.hear().is_some() {}
    world.speak();
    let clusters = world.to_client.pop_front().unwrap();
    // It asks for endpoints before it answers.
    world.subscribe(Endpoints, "c");
    world.speak();
    while world.hear().is_some() {}
    world.speak();
    let told = pushes(&mut world);
    assert_eq!(told, [r#"CDS ["c=1"]"#, r#"EDS ["c=1"]"#], "listeners wait");
    world.to_client.push_back(clusters);
    world.rest();
    world.assert_in_step();
}
