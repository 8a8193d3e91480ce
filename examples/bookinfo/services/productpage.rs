//! `productpage`: the book's page, made of what details and reviews say. Who has logged in is told to them by the header
//! `end-user`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::outbound::{Outbound, passed_on};
use super::{Answer, in_json, not_found, page, typed};

/// How long the page waits for details, and each of two times for reviews.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a form may be, in bytes.
const LONGEST_FORM: usize = 4096;
const END_USER: &str = "end-user";

pub(super) async fn answer(others: &Outbound, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let headers = || headers_for_others(request.headers());
    match (request.method(), &*path) {
        (&Method::POST, "/login") => log_in(request).await,
        (_, "/logout") => back("session=; Max-Age=0; Path=/; HttpOnly"),
        (_, "/") => html(page::front()),
        (_, "/productpage") => {
            let user = user(request.headers());
            let (details, reviews) =
                tokio::join!(details(others, 0, headers()), reviews(others, 0, headers()));
            html(page::product(user, details.as_ref().ok(), reviews.as_ref().ok()))
        }
        (_, "/api/v1/products") => {
            in_json(StatusCode::OK, &json!([{"id": 0, "title": page::TITLE}]))
        }
        _ => api(others, &path, headers()).await,
    }
}

/// The parts of the page as JSON.
async fn api(others: &Outbound, path: &str, headers: HeaderMap) -> Answer {
    let Some(rest) = path.strip_prefix("/api/v1/products/") else { return not_found() };
    let (id, part) = rest.split_once('/').unwrap_or((rest, "details"));
    let Ok(id) = id.parse() else { return not_found() };
    let found = match part {
        "details" => details(others, id, headers).await,
        "reviews" => reviews(others, id, headers).await,
        "ratings" => {
            others.get(&format!("http://ratings:9080/ratings/{id}"), headers, PATIENCE).await
        }
        _ => return not_found(),
    };
    match found {
        Ok(found) => in_json(StatusCode::OK, &found),
        Err(error) => {
            in_json(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": format!("{error:#}")}))
        }
    }
}

async fn details(others: &Outbound, id: u64, headers: HeaderMap) -> anyhow::Result<Value> {
    others.get(&format!("http://details:9080/details/{id}"), headers, PATIENCE).await
}

async fn reviews(others: &Outbound, id: u64, headers: HeaderMap) -> anyhow::Result<Value> {
    let url = format!("http://reviews:9080/reviews/{id}");
    match others.get(&url, headers.clone(), PATIENCE).await {
        Ok(reviews) => Ok(reviews),
        Err(_) => others.get(&url, headers, PATIENCE).await,
    }
}

/// Notes who it is in a cookie; this is a demonstration, and any name will do.
async fn log_in(request: Request<Incoming>) -> Answer {
    let form = Limited::new(request.into_body(), LONGEST_FORM).collect().await;
    let form = form.map(|form| form.to_bytes()).unwrap_or_default();
    let name = form.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(b"username="));
    let is_name = |name: &&[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_alphanumeric);
    match name.filter(is_name).and_then(|name| std::str::from_utf8(name).ok()) {
        Some(name) => back(&format!("session={name}; Path=/; HttpOnly; SameSite=Lax")),
        None => {
            typed(StatusCode::BAD_REQUEST, "text/plain", "a name has letters and digits\n".into())
        }
    }
}

/// Sends the browser back to the page, with a cookie.
fn back(cookie: &str) -> Answer {
    let mut answer = Response::new(Full::<Bytes>::default());
    *answer.status_mut() = StatusCode::FOUND;
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

fn html(page: String) -> Answer {
    typed(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// Who has logged in.
fn user(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).map(str::trim);
    pairs.find_map(|pair| pair.strip_prefix("session=")).filter(|name| !name.is_empty())
}

fn headers_for_others(headers: &HeaderMap) -> HeaderMap {
    let mut passed = passed_on(headers);
    if let Some(Ok(user)) = user(headers).map(HeaderValue::from_str) {
        passed.insert(END_USER, user);
    }
    passed
}
