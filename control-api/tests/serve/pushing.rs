//! What proxies get, when, and what they do not get again.

use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::type_url::{ResourceType, Variant};

use crate::plane::{Plane, cluster, eventually, node, service};
use crate::sidecar::Sidecar;

const BOTH: [Variant; 2] = [Variant::StateOfTheWorld, Variant::Incremental];

fn endpoints(sidecar: &Sidecar, name: &str) -> usize {
    let kind = ResourceType::Endpoints;
    let found = sidecar.held::<ClusterLoadAssignment>(kind, &cluster(name));
    found.map_or(0, |it| it.endpoints.iter().map(|it| it.lb_endpoints.len()).sum())
}

#[tokio::test]
async fn a_proxy_waits_for_the_first_mesh_and_gets_it_and_every_change() {
    for variant in BOTH {
        let plane = Plane::start().await;
        let sidecar = Sidecar::connect(plane.xds, variant, node("web", "10.0.0.9")).await;
        eventually("connection", || plane.shared.fleet().settled(0).0 == 1).await;
        let first = plane.publish(&service("reviews", &["10.0.0.1"]));
        plane.settled(first, 1).await;
        assert!(sidecar.held::<Cluster>(ResourceType::Cluster, &cluster("reviews")).is_some());
        assert_eq!(endpoints(&sidecar, "reviews"), 1);

        let both = service("reviews", &["10.0.0.1", "10.0.0.2"]) + &service("ratings", &[]);
        plane.settled(plane.publish(&both), 1).await;
        assert_eq!(endpoints(&sidecar, "reviews"), 2);
        assert!(sidecar.held::<Cluster>(ResourceType::Cluster, &cluster("ratings")).is_some());
        assert_eq!(plane.count("pilot_xds_pushes{type=\"cds\"}"), 2.0);
        assert_eq!(plane.count("pilot_proxy_convergence_time_count"), 2.0);
    }
}

#[tokio::test]
async fn only_what_has_changed_is_sent() {
    let plane = Plane::start().await;
    let many: Vec<String> = (0..20).map(|it| format!("s{it}")).collect();
    let mesh = |special: &[&str]| {
        let others = many.iter().map(|name| service(name, &["10.0.0.1"])).collect::<String>();
        others + &service("special", special)
    };
    plane.publish(&mesh(&["10.0.0.1"]));
    let sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    plane.settled(1, 1).await;
    sidecar.arrived();

    plane.settled(plane.publish(&mesh(&["10.0.0.1", "10.0.0.2"])), 1).await;
    let arrived = sidecar.arrived();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!(arrived[0].names, [cluster("special")]);
    let held = sidecar.held::<ClusterLoadAssignment>(ResourceType::Endpoints, &cluster("special"));
    let size = prost::Message::encoded_len(&held.unwrap());
    assert!(arrived[0].bytes <= 2 * size + 200, "{} bytes for {size}", arrived[0].bytes);
}

#[tokio::test]
async fn equal_content_is_not_sent_again() {
    for variant in BOTH {
        let plane = Plane::start().await;
        plane.publish(&service("reviews", &["10.0.0.1"]));
        let sidecar = Sidecar::connect(plane.xds, variant, node("web", "10.0.0.9")).await;
        plane.settled(1, 1).await;
        let sent = plane.shared.fleet().sent();
        sidecar.arrived();
        // A label that no proxy is told of.
        let other =
            service("reviews", &["10.0.0.1"]).replace("kind: Service\n", "kind: Service\n# x\n");
        plane.settled(plane.publish(&other), 1).await;
        assert_eq!(plane.shared.fleet().sent(), sent, "{variant:?}");
        assert!(sidecar.arrived().is_empty());
    }
}

#[tokio::test]
async fn what_is_gone_is_removed_after_what_replaces_it() {
    let plane = Plane::start().await;
    plane.publish(&service("old", &["10.0.0.1"]));
    let sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    plane.settled(1, 1).await;
    sidecar.arrived();
    plane.settled(plane.publish(&service("new", &["10.0.0.1"])), 1).await;
    let arrived = sidecar.arrived();
    let made = arrived.iter().position(|it| it.names == [cluster("new")]).unwrap();
    let broken = arrived.iter().position(|it| it.removed.contains(&cluster("old"))).unwrap();
    assert!(made < broken, "{arrived:?}");
    assert!(sidecar.held::<Cluster>(ResourceType::Cluster, &cluster("old")).is_none());
}

#[tokio::test]
async fn a_new_control_plane_sends_only_the_differences() {
    for variant in BOTH {
        let (old, new) = (Plane::start().await, Plane::start().await);
        let mesh =
            |addresses: &[&str]| service("reviews", addresses) + &service("ratings", &["10.0.0.3"]);
        old.publish(&mesh(&["10.0.0.1"]));
        new.publish(&mesh(&["10.0.0.1", "10.0.0.2"]));
        let mut sidecar = Sidecar::connect(old.xds, variant, node("web", "10.0.0.9")).await;
        old.settled(1, 1).await;
        sidecar.arrived();
        sidecar.reconnect(new.xds, variant).await;
        new.settled(1, 1).await;
        let arrived = sidecar.arrived();
        let clusters = arrived.iter().any(|it| it.kind == ResourceType::Cluster);
        assert!(!clusters, "they are as they were: {arrived:?}");
        assert_eq!(endpoints(&sidecar, "reviews"), 2);
        if variant == Variant::Incremental {
            let names: Vec<_> = arrived.iter().flat_map(|it| &it.names).collect();
            assert_eq!(names, [&cluster("reviews")], "{arrived:?}");
        }
        let synced = new.shared.fleet().clients()[0].kinds[&ResourceType::Cluster].state();
        assert_eq!(synced.words(), "SYNCED");
    }
}

#[tokio::test]
async fn a_refusal_is_told_by_name_counted_and_not_repeated() {
    for variant in BOTH {
        let plane = Plane::start().await;
        let bad = Sidecar::connect(plane.xds, variant, node("bad", "10.0.0.8")).await;
        let good = Sidecar::connect(plane.xds, variant, node("good", "10.0.0.9")).await;
        bad.seen.lock().refuses.push(cluster("ratings"));
        plane.publish(&(service("reviews", &["10.0.0.1"]) + &service("ratings", &["10.0.0.2"])));
        let reject = format!(
            "pilot_xds_cds_reject{{err=\"Internal\",node=\"{}\"}}",
            node("bad", "10.0.0.8").id
        );
        eventually("refusal", || plane.count(&reject) > 0.0).await;
        eventually("the other one", || plane.shared.fleet().settled(1).1 == 1).await;
        assert_eq!(plane.count("pilot_total_xds_rejects{type=\"cds\"}"), 1.0);
        let of = |name: &str| {
            plane.shared.fleet().clients().into_iter().find(|it| it.proxy.name == name).unwrap()
        };
        let kind = of("bad").kinds[&ResourceType::Cluster].clone();
        assert_eq!(kind.state().words(), "ERROR");
        assert_eq!(kind.rejected[0].name, cluster("ratings"));
        assert!(kind.error.unwrap().contains("not to its taste"));
        assert!(
            bad.held::<Cluster>(ResourceType::Cluster, &cluster("reviews")).is_some(),
            "the good one is taken"
        );

        // The same mesh once more is nothing new to either.
        bad.arrived();
        plane.publish(&(service("reviews", &["10.0.0.1"]) + &service("ratings", &["10.0.0.2"])));
        eventually("the other one", || plane.shared.fleet().settled(2).1 == 1).await;
        assert!(!bad.arrived().iter().any(|it| it.kind == ResourceType::Cluster));

        // What mends it is sent at once, and clears the record.
        let mended = plane.publish(&service("reviews", &["10.0.0.1"]));
        if variant == Variant::StateOfTheWorld {
            plane.settled(mended, 2).await;
            assert_eq!(plane.count(&reject), 0.0);
        }
        assert!(good.held::<Cluster>(ResourceType::Cluster, &cluster("reviews")).is_some());
    }
}
