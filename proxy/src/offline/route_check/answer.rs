//! What a route table makes of a test's request.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use xds::envoy::config::core::v3::HeaderValue as ProtoHeader;
use xds::router_check::{DynamicMetadata, ValidationInput};

use crate::config::Invalid;
use crate::config::format::{Facts, Operator};
use crate::config::matcher::RequestHead;
use crate::config::metadata::Metadata;
use crate::config::route::{Action, ClusterSpecifier, DirectResponse, RouteAction};
use crate::discovery::decode;
use crate::route::{Circumstances, Found, RouteTable, redirect, rewrite, weighted};

/// Where a request goes, and what becomes of it on the way.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The virtual host and the route taken, as places in the table.
    pub(super) place: Option<(usize, usize)>,
    /// Which of the route's weighted clusters.
    pub(super) weighted: Option<usize>,
    /// What is forwarded, if anything is.
    pub(super) forwarded: Option<Forwarded>,
    /// Status and location of an answer of the table's own; the location is empty unless it is a redirect.
    pub(super) direct: Option<(u16, String)>,
    /// The method.
    pub(super) method: Method,
    /// Headers of the request as forwarded.
    pub(super) request_headers: HeaderMap,
    /// Headers of the response as the client gets them.
    pub(super) response_headers: HeaderMap,
}

/// A forwarded request.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) cluster: String,
    pub(super) virtual_cluster: String,
    pub(super) virtual_host: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) timeout: Option<Duration>,
}

/// Facts of a request from this machine.
struct FromLocalhost;

impl Facts for FromLocalhost {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let known = *operator == Operator::DownstreamRemoteAddressWithoutPort;
        if known {
            out.extend_from_slice(b"127.0.0.1");
        }
        known
    }
}

/// The table's answer to a request.
///
/// # Errors
/// An input that is no request, with its path in the test.
pub(super) fn answer(table: &RouteTable, input: &ValidationInput) -> Result<Answer, Invalid> {
    let required = |path: &str| Err(Invalid::new(path, "must not be empty"));
    if input.authority.is_empty() {
        return required("input.authority");
    }
    if input.path.is_empty() {
        return required("input.path");
    }
    let method = Method::from_bytes(input.method.as_bytes())
        .map_err(|_| Invalid::new("input.method", "is no HTTP method"))?;
    let scheme = if input.ssl { "https" } else { "http" };
    let mut headers =
        headers(&input.additional_request_headers, "input.additional_request_headers")?;
    headers.append("x-forwarded-proto", HeaderValue::from_static(scheme));
    if input.internal {
        headers.append("x-envoy-internal", HeaderValue::from_static("true"));
    }
    let response_headers =
        self::headers(&input.additional_response_headers, "input.additional_response_headers")?;
    let metadata = metadata(&input.dynamic_metadata);
    let head = RequestHead {
        method: &method,
        scheme,
        authority: &input.authority,
        path_and_query: &input.path,
        headers: &headers,
    };
    let circumstances = Circumstances { metadata: Some(&metadata), ..Circumstances::default() };
    let mut answer = Answer { method: method.clone(), response_headers, ..Answer::default() };
    let Some(found) = table.find(&head, input.random_value, circumstances) else {
        return Ok(answer);
    };
    answer.request_headers.clone_from(&headers);
    if table.wants_https(found, scheme, input.internal) {
        answer.direct = Some((301, redirect::to_https(&head)));
        return Ok(answer);
    }
    take(&mut answer, table, found, &head, input.random_value);
    Ok(answer)
}

fn take(
    answer: &mut Answer,
    table: &RouteTable,
    found: Found,
    head: &RequestHead<'_>,
    random: u64,
) {
    let Some(route) = table.route(found) else { return };
    answer.place = found.place();
    match &route.action {
        Action::Redirect(to) => {
            let location = redirect::location(to, &route.matcher, head, head.scheme);
            answer.direct = Some((to.status.as_u16(), location));
        }
        Action::DirectResponse(response) => respond(answer, response, table, found),
        Action::Forward(action) => forward(answer, action, table, found, head, random),
    }
}

fn respond(answer: &mut Answer, response: &DirectResponse, table: &RouteTable, found: Found) {
    answer.direct = Some((response.status.as_u16(), String::new()));
    let headers = &mut answer.response_headers;
    if !response.body.is_empty() {
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        headers.insert("content-length", response.body.len().into());
    }
    table.mutate_response(found, None, headers, &FromLocalhost);
}

fn forward(
    answer: &mut Answer,
    action: &RouteAction,
    table: &RouteTable,
    found: Found,
    head: &RequestHead<'_>,
    random: u64,
) {
    let Some(host) = table.virtual_host(found) else { return };
    let Some(route) = table.route(found) else { return };
    let virtual_cluster = match table.virtual_cluster(found, head) {
        Some(name) => name,
        None if host.virtual_clusters.is_empty() => "",
        None => "other",
    };
    let target = weighted::target(action, head, None, random);
    let chosen = match &action.cluster {
        ClusterSpecifier::Weighted(clusters) => {
            target.weighted.and_then(|number| clusters.clusters.get(number))
        }
        ClusterSpecifier::Name(_) | ClusterSpecifier::Header(_) => None,
    };
    let mut headers = head.headers.clone();
    table.mutate_request(found, target.weighted, &mut headers, &FromLocalhost);
    table.mutate_response(found, target.weighted, &mut answer.response_headers, &FromLocalhost);
    let changed = RequestHead { headers: &headers, ..*head };
    let authority = rewrite::host(action, chosen, &changed, &FromLocalhost)
        .map_or_else(|| head.authority.to_owned(), |host| host.name.into_owned());
    let rewritten = rewrite::path(&route.matcher, &action.path_rewrite, &changed, &FromLocalhost);
    answer.weighted = target.weighted;
    answer.forwarded = Some(Forwarded {
        cluster: target.cluster.to_owned(),
        virtual_cluster: virtual_cluster.to_owned(),
        virtual_host: host.name.to_string(),
        authority,
        path: rewritten.clone().unwrap_or_else(|| head.path_and_query.to_owned()),
        timeout: action.timeout,
    });
    if rewritten.is_some()
        && let Ok(original) = HeaderValue::from_str(head.path_and_query)
    {
        headers.insert("x-envoy-original-path", original);
    }
    answer.request_headers = headers;
}

fn headers(protos: &[ProtoHeader], field: &str) -> Result<HeaderMap, Invalid> {
    let mut headers = HeaderMap::new();
    for (index, ProtoHeader { key, value, raw_value }) in protos.iter().enumerate() {
        let refuse = |part: &str| Invalid::new(format!("{field}[{index}].{part}"), "is no header");
        let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| refuse("key"))?;
        let value = if raw_value.is_empty() { value.as_bytes() } else { raw_value };
        let value = HeaderValue::from_bytes(value).map_err(|_| refuse("value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// As Envoy's `set_metadata` filter would set it: what is there already stays, unless overwriting is allowed.
fn metadata(protos: &[DynamicMetadata]) -> Metadata {
    let mut metadata = Metadata::default();
    for DynamicMetadata { metadata_namespace, allow_overwrite, value, typed_value: _ } in protos {
        if *allow_overwrite || metadata.namespace(metadata_namespace).is_none() {
            let value = value.as_ref().map(decode::json).unwrap_or_default();
            metadata.merge(metadata_namespace.clone(), value.into());
        }
    }
    metadata
}
