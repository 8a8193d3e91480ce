//! The services: which there are, and what they have in common as servers.

mod details;
mod other;
pub(crate) mod outbound;
mod page;
mod productpage;
mod ratings;
mod reviews;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::outbound::Outbound;

/// What every service answers with.
type Answer = Response<Full<Bytes>>;

/// A workload of the book shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Its whole name.
    name: String,
    service: Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Productpage,
    Details,
    Ratings,
    Reviews(Stars),
    /// Of another mesh than the book shop.
    Other,
}

/// What reviews show of ratings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stars {
    /// v1
    None,
    /// v2
    Black,
    /// v3
    Red,
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut parts = name.split('-');
        let service = match (parts.next(), parts.next()) {
            (Some("productpage"), _) => Service::Productpage,
            (Some("details"), _) => Service::Details,
            (Some("ratings"), _) => Service::Ratings,
            (Some("reviews"), Some("v1")) => Service::Reviews(Stars::None),
            (Some("reviews"), Some("v2")) => Service::Reviews(Stars::Black),
            (Some("reviews"), Some("v3")) => Service::Reviews(Stars::Red),
            (Some("reviews"), _) => return Err("want reviews-v1 to reviews-v3".into()),
            _ => Service::Other,
        };
        Ok(Self { name: name.to_owned(), service })
    }
}

/// Serves HTTP/1.1 at `address` until the process is ended.
///
/// # Errors
/// If it cannot listen there.
pub(crate) async fn serve(workload: Workload, address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{} cannot listen on {address}", workload.name))?;
    eprintln!("{} listens at {}", workload.name, listener.local_addr()?);
    let (workload, outbound) = (Arc::new(workload), Arc::new(Outbound::from_environment()?));
    loop {
        let (tcp, _) = listener.accept().await?;
        let (workload, outbound) = (Arc::clone(&workload), Arc::clone(&outbound));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (workload, outbound) = (Arc::clone(&workload), Arc::clone(&outbound));
                async move { Ok::<_, Infallible>(answer(&workload, &outbound, request).await) }
            });
            // A client that goes away ends its own connection and nothing else.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}

async fn answer(workload: &Workload, others: &Outbound, request: Request<Incoming>) -> Answer {
    if request.uri().path() == "/health" {
        return in_json(
            StatusCode::OK,
            &json!({"status": format!("{} is healthy", workload.name)}),
        );
    }
    match workload.service {
        Service::Productpage => productpage::answer(others, request).await,
        Service::Details => details::answer(&request),
        Service::Ratings => ratings::answer(&request),
        Service::Reviews(stars) => reviews::answer(&workload.name, stars, others, &request).await,
        Service::Other => other::answer(&workload.name, &request),
    }
}

fn in_json(status: StatusCode, value: &Value) -> Answer {
    typed(status, "application/json", format!("{value}\n"))
}

fn not_found() -> Answer {
    in_json(StatusCode::NOT_FOUND, &json!({"error": "there is no such page"}))
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The number in a path like `/ratings/0`.
fn product(path: &str, collection: &str) -> Option<u64> {
    path.strip_prefix('/')?.strip_prefix(collection)?.strip_prefix('/')?.parse().ok()
}
