//! The policies of a recorded mesh, as istiod 1.30 sent them to its proxies: what becomes of requests.
//!
//! What is expected stands in tables, and follows from the policies as somebody wrote them (`input/` of the
//! recordings); both programs are held to it. Of the resources only their sources are changed, and the filters of
//! Istio's own build left out for Envoy; where one policy hides what another one says, a table says what it removes.
//!
//! The recordings are not part of this repository: see [`crate::suites`].

mod gateway;
pub(crate) mod mesh;
mod modes;
mod routes;
mod rules;
mod tokens;

use std::net::SocketAddr;

use harness::client::Call;

/// `productpage` of the namespace `default`.
pub(crate) const PRODUCTPAGE: SocketAddr = pod(23, 9080);
/// `reviews` of the namespace `default`, version 2.
const REVIEWS: SocketAddr = pod(26, 9080);
/// `mysqldb` of the namespace `data`.
const MYSQL: SocketAddr = pod(28, 3306);
/// `web` of the namespace `scoped`.
const WEB: SocketAddr = pod(6, 8080);
/// The address of some other pod.
const CALLER: &str = "10.244.0.1";

/// A port of the pod with this number.
pub(crate) const fn pod(number: u8, port: u16) -> SocketAddr {
    let address = std::net::Ipv4Addr::new(10, 244, 0, number);
    SocketAddr::new(std::net::IpAddr::V4(address), port)
}

/// What becomes of a request: `200`, or the status and what is said, or `closed` where there is no answer.
async fn verdict(call: Call) -> String {
    match call.try_send().await {
        Err(_) => "closed".to_owned(),
        Ok(reply) if reply.status == 200 => "200".to_owned(),
        Ok(reply) => format!("{} {}", reply.status, reply.text()).trim_end().to_owned(),
    }
}

/// What a policy's refusal looks like.
const DENIED: &str = "403 RBAC: access denied";
