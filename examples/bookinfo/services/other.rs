//! Whoever is not of the book shop: says who it is, and what it was asked.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::{Answer, in_json};

pub(super) fn answer(workload: &str, request: &Request<Incoming>) -> Answer {
    let (method, path) = (request.method().as_str(), request.uri().path());
    in_json(StatusCode::OK, &json!({"workload": workload, "method": method, "path": path}))
}
