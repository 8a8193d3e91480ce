//! Which requests a rule is for, in the words of virtual services.

use std::collections::BTreeMap;

use crate::model::gateway_api::grpc_route::{GrpcMethodMatch, GrpcRouteMatch};
use crate::model::gateway_api::http_route::{
    HeaderMatchType, HttpHeaderMatch, HttpMethod, HttpPathMatch, HttpRouteMatch, PathMatchType,
};
use crate::model::istio::virtual_service::{HttpMatchRequest, StringMatch};

/// Of an HTTP request.
pub(super) fn of_http(wanted: &HttpRouteMatch) -> HttpMatchRequest {
    HttpMatchRequest {
        uri: Some(path(&wanted.path)),
        headers: values(&wanted.headers, true),
        query_params: values(&wanted.query_params, false),
        method: wanted.method.map(|it| StringMatch::Exact(method(it).to_owned())),
        ..HttpMatchRequest::default()
    }
}

/// Of a gRPC call.
pub(super) fn of_grpc(wanted: &GrpcRouteMatch) -> HttpMatchRequest {
    HttpMatchRequest {
        uri: wanted.method.as_ref().and_then(call),
        headers: values(&wanted.headers, true),
        ..HttpMatchRequest::default()
    }
}

fn path(wanted: &HttpPathMatch) -> StringMatch {
    let value = wanted.value.clone();
    match wanted.r#type {
        PathMatchType::Exact => StringMatch::Exact(value),
        PathMatchType::RegularExpression => StringMatch::Regex(value),
        // A slash at the end means nothing.
        PathMatchType::PathPrefix => match value.strip_suffix('/') {
            Some(short) if !short.is_empty() => StringMatch::Prefix(short.to_owned()),
            _ => StringMatch::Prefix(value),
        },
    }
}

/// The path of a call is `/SERVICE/METHOD`.
fn call(wanted: &GrpcMethodMatch) -> Option<StringMatch> {
    let GrpcMethodMatch { r#type, service, method } = wanted;
    let exact = *r#type == HeaderMatchType::Exact;
    let quoted = |text: &str| if exact { regex::escape(text) } else { text.to_owned() };
    match (service.as_deref(), method.as_deref()) {
        (None, None) => None,
        (Some(service), None) if exact => Some(StringMatch::Prefix(format!("/{service}/"))),
        (Some(service), None) => Some(StringMatch::Regex(format!("/{service}/.+"))),
        (None, Some(method)) => Some(StringMatch::Regex(format!("/[^/]+/{}", quoted(method)))),
        (Some(service), Some(method)) => {
            let path = format!("/{service}/{method}");
            Some(if exact { StringMatch::Exact(path) } else { StringMatch::Regex(path) })
        }
    }
}

/// The first of equal names counts; upper and lower case are the same in names of headers.
fn values(wanted: &[HttpHeaderMatch], of_headers: bool) -> BTreeMap<String, StringMatch> {
    let mut values = BTreeMap::new();
    for it in wanted {
        let name = if of_headers { it.name.to_ascii_lowercase() } else { it.name.clone() };
        values.entry(name).or_insert_with(|| match it.r#type {
            HeaderMatchType::Exact => StringMatch::Exact(it.value.clone()),
            HeaderMatchType::RegularExpression => StringMatch::Regex(it.value.clone()),
        });
    }
    values
}

fn method(wanted: HttpMethod) -> &'static str {
    match wanted {
        HttpMethod::Get => "GET",
        HttpMethod::Head => "HEAD",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Connect => "CONNECT",
        HttpMethod::Options => "OPTIONS",
        HttpMethod::Trace => "TRACE",
        HttpMethod::Patch => "PATCH",
    }
}
