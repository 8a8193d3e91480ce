//! `details`: what a catalogue says of a book.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::{Answer, in_json, not_found, product};

pub(super) fn answer(request: &Request<Incoming>) -> Answer {
    let Some(id) = product(request.uri().path(), "details") else { return not_found() };
    let details = json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    });
    in_json(StatusCode::OK, &details)
}
