//! Authorization over plain HTTP: the request made of a request, and what the status and headers of the answer mean.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use serde_json::{Map, Value};

use super::check::{PARTIAL_BODY, ToldBody, headers};
use super::verdict::{Changes, Decision, Denial, Header, Verdict};
use crate::config::ext_authz::{HttpAuthz, Tells};
use crate::config::format::Facts;
use crate::config::header::AppendAction;
use crate::config::matcher::StringMatcher;
use crate::http::hop_by_hop;
use crate::http::stream::Head;
use crate::net::body::RequestBody;

/// Lists headers, apart by commas, that an allowed request loses.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// What clients get with a denial besides `allowed_client_headers`.
const WITH_DENIALS: [&str; 3] = ["content-length", "location", "www-authenticate"];

/// The request to `service`; none if its path would be none.
pub(super) fn request(
    service: &HttpAuthz,
    tells: &Tells,
    head: &Head,
    body: Option<&ToldBody>,
    facts: &dyn Facts,
) -> Option<Request<RequestBody>> {
    let bytes = body.map(|body| body.bytes.clone()).unwrap_or_default();
    let mut told = HeaderMap::new();
    for (name, value) in headers(tells, head) {
        let name = HeaderName::from_bytes(name.as_bytes());
        // Pseudo headers, and the length of what is not sent, stay behind.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
            join(&mut told, name, value);
        }
    }
    told.insert(HOST, HeaderValue::from_str(&head.authority).ok()?);
    told.insert(CONTENT_LENGTH, bytes.len().into());
    if let Some(body) = body {
        let partial = if body.is_partial { "true" } else { "false" };
        told.insert(PARTIAL_BODY, HeaderValue::from_static(partial));
    }
    hop_by_hop::strip_request(&mut told, false);
    for header in &service.headers_to_add {
        if let Some(value) = header.value(facts) {
            told.insert(&header.name, value);
        }
    }
    let path = format!("{}{}", service.path_prefix, head.path);
    let mut request = Request::new(RequestBody::full(bytes));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::try_from(path).ok()?;
    *request.headers_mut() = told;
    Some(request)
}

/// Several values of one header are told as one.
fn join(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let joined = headers.get(&name).map(|it| [it.as_bytes(), b",", value.as_bytes()].concat());
    let joined = joined.and_then(|it| HeaderValue::from_bytes(&it).ok()).unwrap_or(value);
    headers.insert(name, joined);
}

/// What the answer of `service` means.
pub(super) fn verdict(service: &HttpAuthz, response: Response<Bytes>) -> Verdict {
    let (parts, body) = response.into_parts();
    let (status, mut headers) = (parts.status, parts.headers);
    if status.is_server_error() {
        return Verdict::default();
    }
    hop_by_hop::strip_response(&mut headers, false);
    let metadata = metadata(&service.metadata, &headers);
    let decision = match status {
        StatusCode::OK => Decision::Allowed(Box::new(changes(service, &headers))),
        _ => Decision::Denied(Box::new(Denial {
            status: Some(status),
            headers: chosen(&headers, |name| is_told_with_denial(service, name)).collect(),
            body: body.to_vec(),
        })),
    };
    Verdict { decision, metadata }
}

fn is_told_with_denial(service: &HttpAuthz, name: &str) -> bool {
    match &*service.client {
        [] => name != "host",
        list => matches(list, name) || WITH_DENIALS.contains(&name),
    }
}

fn changes(service: &HttpAuthz, headers: &HeaderMap) -> Changes {
    let of =
        |list: &'_ [StringMatcher]| chosen(headers, |name| matches(list, name)).collect::<Vec<_>>();
    let to_response = of(&service.client_on_success).into_iter();
    let removed = headers.get_all(TO_REMOVE).iter();
    let removed = removed.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    Changes {
        set: of(&service.upstream),
        add: of(&service.upstream_append),
        remove: removed.map(|name| name.trim().to_owned()).filter(|it| !it.is_empty()).collect(),
        response: to_response.map(|it| (AppendAction::AppendIfExistsOrAdd, it)).collect(),
        ..Changes::default()
    }
}

fn metadata(list: &[StringMatcher], headers: &HeaderMap) -> Map<String, Value> {
    let text = |value: Vec<u8>| Value::from(String::from_utf8_lossy(&value).into_owned());
    let all = chosen(headers, |name| matches(list, name));
    all.map(|(name, value)| (name, text(value))).collect()
}

fn chosen(headers: &HeaderMap, is: impl Fn(&str) -> bool) -> impl Iterator<Item = Header> {
    let chosen = headers.iter().filter(move |(name, _)| is(name.as_str()));
    chosen.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
}

fn matches(list: &[StringMatcher], name: &str) -> bool {
    list.iter().any(|it| it.matches(name.as_bytes()))
}
