//! Rules a client follows, message by message.

use std::time::Duration;

use prost_types::Any;
use xds::client::{self, Cause, Lapse, Rejection, Update};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    ResourceError, ResourceName,
};
use xds::google::rpc::Status;
use xds::type_url::ResourceType::{self, Cluster, Endpoints, Listener, Routes};
use xds::type_url::Variant;
use xds::wire::{Request, Response};

use crate::world::{BAD, BOTH, World, resource};

fn sotw(kind: ResourceType, version: &str, nonce: &str, resources: Vec<Any>) -> Response {
    Response::Sotw(DiscoveryResponse {
        version_info: version.into(),
        type_url: kind.url().into(),
        nonce: nonce.into(),
        resources,
        ..DiscoveryResponse::default()
    })
}

fn delta(kind: ResourceType, nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> Response {
    Response::Delta(DeltaDiscoveryResponse {
        type_url: kind.url().into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    })
}

fn versioned(kind: ResourceType, name: &str, content: u8, version: &str) -> Resource {
    let body = resource(kind, name, content);
    Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(body),
        ..Resource::default()
    }
}

fn names(update: &Update) -> Vec<&str> {
    update.resources.iter().map(|received| &*received.name).collect()
}

fn bad(name: &str) -> Vec<Rejection> {
    vec![Rejection { name: name.into(), reason: "is bad".into() }]
}

impl World {
    /// A client alone; its first request is on its way.
    fn asks(variant: Variant, kind: ResourceType, names: &[&str]) -> Self {
        let mut world = Self::new(variant);
        names.iter().for_each(|name| world.client.subscribe(kind, [name], world.now));
        world.said();
        world
    }

    /// All the client has to say.
    fn said(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.client.request(self.now)).collect()
    }

    fn said_sotw(&mut self) -> DiscoveryRequest {
        match &*self.said() {
            [Request::Sotw(request)] => request.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn said_delta(&mut self) -> DeltaDiscoveryRequest {
        match &*self.said() {
            [Request::Delta(request)] => request.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn told(&mut self, response: Response, rejected: Vec<Rejection>) {
        let update = self.client.receive(response).unwrap();
        self.client.settle(update, rejected, self.now);
    }

    fn holds(&self, kind: ResourceType) -> Vec<(&str, &str)> {
        self.client.held(kind).collect()
    }
}

#[test]
fn an_ack_bears_the_new_version_and_a_nack_the_one_before() {
    let mut world = World::asks(Variant::StateOfTheWorld, Cluster, &["*"]);
    world.told(sotw(Cluster, "1", "a", vec![resource(Cluster, "x", 1)]), vec![]);
    let ack = world.said_sotw();
    assert_eq!((&*ack.version_info, &*ack.response_nonce, ack.error_detail), ("1", "a", None));

    let response =
        sotw(Cluster, "2", "b", vec![resource(Cluster, "x", 2), resource(Cluster, "y", 2)]);
    world.told(response, bad("y"));
    let nack = world.said_sotw();
    assert_eq!((&*nack.version_info, &*nack.response_nonce), ("1", "b"));
    let error = nack.error_detail.unwrap();
    assert_eq!((error.code, &*error.message), (13, "y: is bad"));
    let detail: ResourceError = error.details[0].to_msg().unwrap();
    assert_eq!(detail.resource_name.unwrap().name, "y");
    assert_eq!(world.holds(Cluster), [("x", "2")], "the good one is taken");
    let standing = world.client.standing(Cluster).unwrap();
    assert_eq!((standing.version, standing.acks, standing.nacks), ("1", 1, 1));
}

#[test]
fn a_new_stream_begins_with_the_version_held_if_that_is_what_is_held() {
    let mut world = World::asks(Variant::StateOfTheWorld, Cluster, &["*"]);
    world.told(sotw(Cluster, "1", "a", vec![resource(Cluster, "x", 1)]), vec![]);
    world.client.connected();
    let first = world.said_sotw();
    assert_eq!((&*first.version_info, &*first.response_nonce), ("1", ""));
    assert!(first.resource_names.is_empty());
    assert!(first.node.is_some());
    world.told(
        sotw(Cluster, "2", "b", vec![resource(Cluster, "x", 2), resource(Cluster, "y", 2)]),
        bad("y"),
    );
    world.client.connected();
    assert_eq!(world.said_sotw().version_info, "", "neither of the two");

    let mut world = World::asks(Variant::Incremental, Endpoints, &["x", "y"]);
    world.told(delta(Endpoints, "a", vec![versioned(Endpoints, "x", 1, "1")], &[]), vec![]);
    world.told(delta(Endpoints, "b", vec![versioned(Endpoints, "x", 2, "2")], &[]), bad("x"));
    world.client.connected();
    let first = world.said_delta();
    assert_eq!(first.resource_names_subscribe, ["x", "y"]);
    assert_eq!(first.initial_resource_versions, [("x".into(), "1".into())].into());
}

#[test]
fn what_was_held_before_the_client_was_made_is_resumed() {
    let (x, y) = (resource(Cluster, "x", 1), resource(Cluster, "y", 1));
    let held = || [("x", "1", &x), ("y", "2", &y)];
    let mut world = World::new(Variant::StateOfTheWorld);
    world.client.subscribe(Cluster, ["*"], world.now);
    world.client.resume(Cluster, "7", held());
    assert_eq!(world.said_sotw().version_info, "7");
    let update = world.client.receive(sotw(Cluster, "8", "a", vec![x.clone()])).unwrap();
    assert!(update.resources[0].unchanged);
    assert_eq!(update.removed, ["y"]);
    world.client.settle(update, vec![], world.now);
    assert_eq!(world.holds(Cluster), [("x", "8")]);

    let mut world = World::new(Variant::Incremental);
    world.client.subscribe(Endpoints, ["x"], world.now);
    let x = resource(Endpoints, "x", 1);
    world.client.resume(Endpoints, "7", [("x", "1", &x), ("z", "1", &x)]);
    let first = world.said_delta();
    assert_eq!(first.initial_resource_versions, [("x".into(), "1".into())].into());
    world.now += Duration::from_secs(60);
    assert_eq!(world.client.lapsed(world.now), [], "it is there, and not waited for");

    let mut world = World::new(Variant::StateOfTheWorld);
    world.client.subscribe(Endpoints, ["x"], world.now);
    world.client.resume(Endpoints, "7", [("x", "1", &x), ("z", "1", &x)]);
    assert_eq!(world.said_sotw().version_info, "", "something else is held than that version says");
}

#[test]
fn what_a_complete_response_leaves_out_is_removed() {
    let mut world = World::asks(Variant::StateOfTheWorld, Listener, &["*"]);
    let all = || vec![resource(Listener, "x", 1), resource(Listener, "y", 1)];
    world.told(sotw(Listener, "1", "a", all()), vec![]);
    let update = world.client.receive(sotw(Listener, "2", "b", all()[..1].to_vec())).unwrap();
    assert_eq!((names(&update), &*update.removed), (vec!["x"], &["y".to_owned()][..]));
    assert!(update.resources[0].unchanged);
    world.client.settle(update, vec![], world.now);

    let nameless = Any { type_url: Listener.url().into(), value: vec![0xff] };
    let update = world.client.receive(sotw(Listener, "3", "c", vec![nameless])).unwrap();
    assert!(update.removed.is_empty(), "it may be any of them");
    world.client.settle(update, vec![], world.now);
    assert_eq!(world.holds(Listener).len(), 1);

    let mut world = World::asks(Variant::StateOfTheWorld, Routes, &["x", "y"]);
    world.told(sotw(Routes, "1", "a", vec![resource(Routes, "x", 1)]), vec![]);
    world.told(sotw(Routes, "1", "b", vec![resource(Routes, "y", 1)]), vec![]);
    assert_eq!(world.holds(Routes).len(), 2, "other kinds come one by one");
}

#[test]
fn a_name_twice_in_a_response_is_refused_and_nothing_is_taken() {
    for variant in BOTH {
        let mut world = World::asks(variant, Cluster, &["*"]);
        let response = match variant {
            Variant::StateOfTheWorld => {
                let twice = vec![resource(Cluster, "x", 1), resource(Cluster, "x", 2)];
                sotw(Cluster, "1", "a", twice)
            }
            Variant::Incremental => {
                delta(Cluster, "a", vec![versioned(Cluster, "x", 1, "1")], &["x"])
            }
        };
        let update = world.client.receive(response).unwrap();
        assert!(update.resources.is_empty() && update.removed.is_empty());
        world.client.settle(update, vec![], world.now);
        let said = world.said();
        let error = said[0].error_detail().unwrap();
        assert_eq!(error.message, "duplicate name x in a response");
    }
}

#[test]
fn a_resource_of_another_type_does_not_spoil_the_rest() {
    let mut world = World::asks(Variant::Incremental, Cluster, &["*"]);
    let mut wrong = versioned(Cluster, "x", 1, "1");
    wrong.resource = Some(resource(Listener, "x", 1));
    let response = delta(Cluster, "a", vec![wrong, versioned(Cluster, "y", 1, "1")], &[]);
    world.told(response, vec![]);
    assert_eq!(world.holds(Cluster), [("y", "1")]);
    let nack = world.said_delta();
    assert!(nack.error_detail.unwrap().message.starts_with("x: type URL "));
}

#[test]
fn what_was_not_asked_for_is_ignored() {
    let mut world = World::asks(Variant::StateOfTheWorld, Endpoints, &["x"]);
    let both = vec![resource(Endpoints, "x", 1), resource(Endpoints, "y", 1)];
    let update = world.client.receive(sotw(Endpoints, "1", "a", both)).unwrap();
    assert_eq!(names(&update), ["x"]);
    world.client.settle(update, vec![], world.now);
    assert_eq!(world.said_sotw().error_detail, None);
    assert!(world.client.receive(sotw(Routes, "1", "b", vec![])).is_none());
    assert!(world.said().is_empty());
}

#[test]
fn what_does_not_come_is_missing_after_fifteen_seconds_and_may_still_come() {
    for variant in BOTH {
        let mut world = World::asks(variant, Endpoints, &["x"]);
        assert_eq!(world.client.deadline(), Some(world.now + client::FETCH_TIMEOUT));
        world.now += Duration::from_millis(14_999);
        assert!(world.client.lapsed(world.now).is_empty());
        world.now += Duration::from_millis(1);
        let missing = Lapse { kind: Endpoints, name: "x".into(), cause: Cause::Missing };
        assert_eq!(world.client.lapsed(world.now), [missing]);
        assert!(world.client.lapsed(world.now).is_empty(), "told once");
        world.put(Endpoints, "x", 1);
        world.wants.entry(Endpoints).or_default().add("x");
        world.connect();
        world.rest();
        world.assert_in_step();
    }
}

#[test]
fn an_incremental_server_says_what_does_not_exist() {
    let mut world = World::new(Variant::Incremental);
    world.subscribe(Endpoints, "x");
    world.speak();
    world.hear();
    world.speak();
    let response = world.to_client.pop_front().unwrap();
    let update = world.client.receive(response).unwrap();
    assert_eq!(update.removed, ["x"]);
    world.client.settle(update, vec![], world.now);
    assert_eq!(world.client.deadline(), Some(world.now), "only the ACK is left to do");
}

#[test]
fn errors_of_the_server_remove_only_what_is_not_found() {
    let error = |name: &str, code| ResourceError {
        resource_name: Some(ResourceName { name: name.into(), ..ResourceName::default() }),
        error_detail: Some(Status { code, message: "why".into(), details: vec![] }),
    };
    let mut world = World::asks(Variant::StateOfTheWorld, Listener, &["*"]);
    let all = ["x", "y", "z"].map(|name| resource(Listener, name, 1)).to_vec();
    world.told(sotw(Listener, "1", "a", all), vec![]);
    let Response::Sotw(mut response) = sotw(Listener, "2", "b", vec![]) else { panic!() };
    response.resource_errors = vec![error("x", 5), error("y", 14)];
    let update = world.client.receive(Response::Sotw(response)).unwrap();
    assert_eq!(update.removed, ["x", "z"]);
    assert_eq!(update.withheld, [Rejection { name: "y".into(), reason: "why".into() }]);
    world.client.settle(update, vec![], world.now);
    assert_eq!(world.holds(Listener), [("y", "1")]);
}

#[test]
fn a_push_that_is_refused_again_and_again_is_answered_ever_more_slowly() {
    let mut world = World::asks(Variant::StateOfTheWorld, Listener, &["*"]);
    let begin = world.now;
    let mut answered = Vec::new();
    for number in 0..6 {
        let response = sotw(Listener, &number.to_string(), "n", vec![resource(Listener, "x", BAD)]);
        world.told(response, bad("x"));
        while world.said().is_empty() {
            world.now = world.client.deadline().unwrap();
        }
        answered.push((world.now - begin).as_millis());
    }
    assert_eq!(answered, [0, 500, 1500, 3500, 7500, 15_500]);
    let standing = world.client.standing(Listener).unwrap();
    assert_eq!((standing.nacks, standing.repeats, standing.error), (6, 6, Some("x: is bad")));
    world.told(sotw(Listener, "9", "m", vec![resource(Listener, "x", 1)]), vec![]);
    assert_eq!(world.said_sotw().error_detail, None, "what is good is answered at once");
}

#[test]
fn what_is_refused_is_not_asked_for_for_ever_after_it_was_given_up_for_a_moment() {
    for variant in BOTH {
        let mut world = World::new(variant);
        world.put(Endpoints, "b", BAD);
        world.subscribe(Endpoints, "b");
        world.speak();
        world.unsubscribe(Endpoints, "b");
        world.subscribe(Endpoints, "b");
        world.rest();
        assert!(world.messages < 20, "{:#?}", world.log);
    }
}
