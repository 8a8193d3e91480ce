//! Clients that do not behave: each loses its own stream, and holds up nobody.

use std::time::Duration;

use control_api::serve::ads::Limits;
use tokio::sync::mpsc;
use tonic::Code;
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::DiscoveryRequest;
use xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds::type_url::{ResourceType, Variant};

use crate::plane::{Plane, eventually, node, service};
use crate::sidecar::{Sidecar, channel};

/// Sends these requests, and tells how the stream ended.
async fn ended(plane: &Plane, requests: Vec<DiscoveryRequest>) -> Code {
    let (sender, mut receiver) = mpsc::channel(8);
    for request in requests {
        sender.send(request).await.unwrap();
    }
    let requests = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut service = AggregatedDiscoveryServiceClient::new(channel(plane.xds).await);
    let mut responses = match service.stream_aggregated_resources(requests).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

fn request(node: Option<Node>, names: usize) -> DiscoveryRequest {
    DiscoveryRequest {
        node,
        type_url: ResourceType::Endpoints.url().into(),
        resource_names: (0..names).map(|it| it.to_string()).collect(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test]
async fn streams_that_break_the_rules_are_ended_with_the_reason() {
    let limits = Limits {
        names_per_stream: 100,
        first_request: Duration::from_millis(50),
        ..Limits::default()
    };
    let plane = Plane::with(limits).await;
    plane.publish(&service("reviews", &[]));
    let known = || Some(node("web", "10.0.0.9"));
    assert_eq!(ended(&plane, vec![]).await, Code::DeadlineExceeded, "it never says who it is");
    assert_eq!(ended(&plane, vec![request(None, 0)]).await, Code::InvalidArgument);
    let stranger = Some(Node { id: "somebody".into(), ..Node::default() });
    assert_eq!(ended(&plane, vec![request(stranger, 0)]).await, Code::InvalidArgument);
    assert_eq!(ended(&plane, vec![request(known(), 101)]).await, Code::ResourceExhausted);
    eventually("an empty fleet", || plane.shared.fleet().clients().is_empty()).await;
    assert!(
        !plane.shared.metrics().text().unwrap().contains("\npilot_xds{"),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn a_node_has_a_few_streams_and_not_more() {
    let plane = Plane::with(Limits { streams_per_node: 2, ..Limits::default() }).await;
    plane.publish(&service("reviews", &[]));
    let connect = || Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9"));
    let (one, two) = (connect().await, connect().await);
    plane.settled(1, 2).await;
    let three = connect().await;
    eventually("an end", || three.seen.lock().ended.is_some()).await;
    assert_eq!(three.seen.lock().ended.as_ref().unwrap().code(), Code::ResourceExhausted);
    // Both are one proxy, and what it is told is computed once.
    assert_eq!(plane.shared.cache().len(), 1);
    drop((one, two));
    eventually("an empty fleet", || plane.shared.fleet().clients().is_empty()).await;
    eventually("an empty cache", || plane.shared.cache().is_empty()).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_nobody() {
    let plane = Plane::with(Limits { send: Duration::from_millis(300), ..Limits::default() }).await;
    let many: String = (0..400).map(|it| service(&format!("s{it}"), &["10.0.0.1"])).collect();
    plane.publish(&many);
    let (sender, mut receiver) = mpsc::channel(8);
    for kind in [ResourceType::Cluster, ResourceType::Listener] {
        let type_url = kind.url().to_owned();
        let node = Some(node("deaf", "10.0.0.8"));
        sender.send(DiscoveryRequest { node, type_url, ..Default::default() }).await.unwrap();
    }
    let requests = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut deaf = AggregatedDiscoveryServiceClient::new(channel(plane.xds).await);
    // The responses are never looked at.
    let _unread = deaf.stream_aggregated_resources(requests).await.unwrap();
    eventually("the deaf one", || plane.shared.fleet().settled(0).0 == 1).await;

    let sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    eventually("the other one", || plane.shared.fleet().settled(1).1 == 1).await;
    assert!(!sidecar.arrived().is_empty());
}
