//! How things stand, over HTTP: for people, programs and Prometheus, and on the paths of istiod's debug interface.
//!
//! What tells of configuration is for this machine only: others get health and metrics.

mod openapi;
mod registry;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::ControlPlane;
use super::dump::config_dump;
use super::fleet::Client;
use crate::analyze::explain::{self, Question};

/// Paths that everyone may ask for.
const OPEN: [&str; 5] = ["/", "/healthz", "/ready", "/metrics", "/version"];

/// The part of a dump that is about endpoints.
const ENDPOINTS: &str = ".EndpointsConfigDump";

/// Serves until the control plane drains.
///
/// # Errors
/// The listener fails.
pub async fn serve(plane: Arc<ControlPlane>, listener: TcpListener) -> std::io::Result<()> {
    let drained = {
        let plane = Arc::clone(&plane);
        async move { plane.drained().await }
    };
    let service = router(plane).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(drained).await
}

type Plane = State<Arc<ControlPlane>>;

fn router(plane: Arc<ControlPlane>) -> Router {
    Router::new()
        .route("/", get(async || openapi::index()))
        .route("/healthz", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(async || concat!(env!("CARGO_PKG_VERSION"), "\n")))
        .route("/openapi.json", get(async || shown(&openapi::document())))
        .route("/api/v1/mesh", get(async |State(plane): Plane| shown(&views::mesh(&plane))))
        .route("/api/v1/findings", get(async |State(plane): Plane| shown(&views::findings(&plane))))
        .route("/api/v1/objects", get(async |State(plane): Plane| shown(&views::objects(&plane))))
        .route("/api/v1/pushes", get(async |State(plane): Plane| shown(&views::pushes(&plane))))
        .route("/api/v1/proxies", get(async |State(plane): Plane| shown(&views::proxies(&plane))))
        .route("/api/v1/explain", get(explain))
        .route("/api/v1/proxies/{proxy}", get(proxy))
        .route("/api/v1/proxies/{proxy}/config", get(proxy_config))
        .route("/debug/syncz", get(async |State(plane): Plane| shown(&views::syncz(&plane))))
        .route("/debug/adsz", get(async |State(plane): Plane| shown(&views::adsz(&plane))))
        .route(
            "/debug/connections",
            get(async |State(plane): Plane| shown(&views::connections(&plane))),
        )
        .route("/debug/configz", get(async |State(plane): Plane| shown(&views::objects(&plane))))
        .route(
            "/debug/registryz",
            get(async |State(plane): Plane| shown(&registry::services(&plane))),
        )
        .route(
            "/debug/endpointz",
            get(async |State(plane): Plane| shown(&registry::endpoints(&plane))),
        )
        .route(
            "/debug/endpointShardz",
            get(async |State(plane): Plane| shown(&registry::endpoints(&plane))),
        )
        .route("/debug/config_dump", get(debug_config_dump))
        .route("/debug/edsz", get(debug_edsz))
        .route("/debug/list", get(async || shown(&openapi::debug_paths())))
        .layer(middleware::from_fn(only_here))
        .with_state(plane)
}

fn shown(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

/// Refuses what is not for other machines.
async fn only_here(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if peer.ip().to_canonical().is_loopback() || OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let said = "only for clients on this machine: forward a port, or ask for /metrics, /ready\n";
    (StatusCode::FORBIDDEN, said).into_response()
}

async fn ready(State(plane): Plane) -> Response {
    if plane.world().number > 0 {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no mesh was read yet\n").into_response()
    }
}

async fn metrics(State(plane): Plane) -> Response {
    match plane.metrics().text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// `from`, `method`, `url`, and `header` as often as there are headers.
async fn explain(State(plane): Plane, Query(all): Query<Vec<(String, String)>>) -> Response {
    let mut question = Question { method: "GET".to_owned(), ..Question::default() };
    for (key, value) in all {
        match key.as_str() {
            "from" => question.from = value,
            "method" => question.method = value,
            "url" => question.url = value,
            "header" => question.headers.push(value),
            _ => {}
        }
    }
    let clients = plane.fleet().clients();
    let is_it = |it: &&Client| it.node == question.from || it.short_name() == question.from;
    let connected = clients.iter().rev().find(is_it).map(|it| (*it.proxy).clone());
    let explained = explain::explain(&plane.world().mesh, connected, &question)
        .and_then(|report| Ok(serde_json::to_value(report)?));
    match explained {
        Ok(report) => shown(&report),
        Err(error) => {
            let said = json!({"error": format!("{error:#}"), "connected": names(&clients)});
            (StatusCode::BAD_REQUEST, shown(&said)).into_response()
        }
    }
}

async fn proxy(State(plane): Plane, Path(wanted): Path<String>) -> Response {
    with_client(&plane, &wanted, views::client)
}

async fn proxy_config(State(plane): Plane, Path(wanted): Path<String>) -> Response {
    with_client(&plane, &wanted, |client| config_dump(&client.plan.told().borrow().snapshot))
}

#[derive(Deserialize)]
struct OfProxy {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
}

async fn debug_config_dump(State(plane): Plane, Query(of): Query<OfProxy>) -> Response {
    of_proxy(&plane, of, |it| it)
}

/// The part of the dump that is about endpoints.
async fn debug_edsz(State(plane): Plane, Query(of): Query<OfProxy>) -> Response {
    of_proxy(&plane, of, |mut dump| {
        if let Some(configs) = dump["configs"].as_array_mut() {
            let is_it = |it: &Value| it["@type"].as_str().is_some_and(|it| it.ends_with(ENDPOINTS));
            configs.retain(is_it);
        }
        dump
    })
}

fn of_proxy(plane: &ControlPlane, of: OfProxy, part: impl Fn(Value) -> Value) -> Response {
    let Some(wanted) = of.proxy_id else {
        let said = "You must provide a proxyID in the query string\n";
        return (StatusCode::BAD_REQUEST, said).into_response();
    };
    with_client(plane, &wanted, |client| part(config_dump(&client.plan.told().borrow().snapshot)))
}

/// Answers for the proxy with this node id, or `NAME.NAMESPACE`; of several streams the newest counts.
fn with_client(plane: &ControlPlane, wanted: &str, view: impl Fn(&Client) -> Value) -> Response {
    let clients = plane.fleet().clients();
    let found = clients.iter().rev().find(|it| it.node == wanted || it.short_name() == wanted);
    match found {
        Some(client) => shown(&view(client)),
        None => {
            let known = names(&clients);
            let said =
                json!({"error": format!("no proxy {wanted} is connected"), "connected": known});
            (StatusCode::NOT_FOUND, shown(&said)).into_response()
        }
    }
}

fn names(clients: &[Client]) -> Vec<String> {
    let mut names: Vec<_> = clients.iter().map(Client::short_name).collect();
    names.sort();
    names.dedup();
    names
}
