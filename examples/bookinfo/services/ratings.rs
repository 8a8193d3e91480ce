//! `ratings`: how many stars the reviewers give.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::{Answer, in_json, not_found, product};

pub(super) fn answer(request: &Request<Incoming>) -> Answer {
    let Some(id) = product(request.uri().path(), "ratings") else { return not_found() };
    in_json(StatusCode::OK, &json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}))
}
