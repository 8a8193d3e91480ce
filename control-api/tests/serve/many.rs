//! Hundreds of proxies that say nothing: what a change costs when it concerns each of them, or none.

use std::time::Instant;

use prost::Message as _;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::type_url::{ResourceType, Variant};

use crate::plane::{Plane, cluster, node, service};
use crate::sidecar::{Sidecar, channel};

const PROXIES: usize = 500;
const SERVICES: usize = 100;
/// Streams of one connection; servers allow no more than 200.
const PER_CONNECTION: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_silent_proxies_cost_one_response_each_for_one_change() {
    let plane = Plane::start().await;
    let mesh = |addresses: &[&str]| {
        let others: String =
            (1..SERVICES).map(|it| service(&format!("s{it}"), &["10.9.0.1"])).collect();
        others + &service("s0", addresses)
    };
    let addresses: Vec<String> = (1..=10).map(|it| format!("10.9.0.{it}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    plane.publish(&mesh(&addresses[1..]));
    let mut proxies = Vec::new();
    for number in 0..PROXIES {
        if number % PER_CONNECTION == 0 {
            proxies.push((channel(plane.xds).await, Vec::new()));
        }
        let (channel, streams) = proxies.last_mut().unwrap();
        let node =
            node(&format!("web-{number}"), &format!("10.8.{}.{}", number / 200, number % 200));
        streams.push(Sidecar::over(channel.clone(), Variant::Incremental, node));
    }
    plane.settled(1, PROXIES).await;
    let before = plane.shared.fleet().sent();

    let begun = Instant::now();
    let second = plane.publish(&mesh(&addresses));
    plane.settled(second, PROXIES).await;
    let after = plane.shared.fleet().sent();
    let (responses, bytes) = (after.0 - before.0, after.1 - before.1);
    eprintln!(
        "one change for {PROXIES} proxies: {:?}, {responses} responses, {bytes} bytes",
        begun.elapsed()
    );
    assert_eq!(responses, u64::try_from(PROXIES).unwrap());
    let first = &proxies[0].1[0];
    let resource: ClusterLoadAssignment =
        first.held(ResourceType::Endpoints, &cluster("s0")).unwrap();
    let each = bytes / u64::try_from(PROXIES).unwrap();
    let size = u64::try_from(resource.encoded_len()).unwrap();
    assert!(each <= 2 * size, "{each} bytes for each proxy, for a resource of {size}");
    let kinds: Vec<_> = proxies
        .iter()
        .flat_map(|(_, streams)| streams)
        .filter_map(|it| it.arrived().last().map(|it| it.kind))
        .collect();
    assert!(kinds.len() == PROXIES && kinds.iter().all(|it| *it == ResourceType::Endpoints));

    // What concerns nobody is not sent to anybody.
    plane.settled(plane.publish(&mesh(&addresses)), PROXIES).await;
    assert_eq!(plane.shared.fleet().sent(), after);
}
