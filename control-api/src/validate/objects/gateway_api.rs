//! The Gateway API's `Gateway` and `HTTPRoute`: what its own rules refuse.

use super::check::Check;
use crate::model::gateway_api::gateway::{FromNamespaces, Gateway, Listener};
use crate::model::gateway_api::http_route::{
    HttpRoute, HttpRouteFilter, HttpRouteFilterType, HttpRouteRule, PathMatchType, PathModifier,
    PathModifierType,
};

pub(super) fn gateway(spec: &Gateway, check: &mut Check<'_>) {
    let listeners = &spec.listeners;
    check.unique("spec.listeners", "name", listeners.iter().map(|it| it.name.as_str()));
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        let same = |other: &&Listener| {
            (other.port, &other.protocol, &other.hostname)
                == (listener.port, &listener.protocol, &listener.hostname)
        };
        if listeners.iter().take(index).any(|other| same(&other)) {
            let reason =
                "Combination of port, protocol and hostname must be unique for each listener";
            check.invalid("spec.listeners", "\"array\"", reason);
        }
        check.port(&format!("{path}.port"), listener.port);
        if let Some(hostname) = &listener.hostname {
            check.wildcard_host(&format!("{path}.hostname"), hostname);
        }
        let plain = matches!(listener.protocol.as_str(), "HTTP" | "TCP" | "UDP");
        if plain && listener.tls.is_some() {
            let reason = "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']";
            check.invalid(&format!("{path}.tls"), "\"object\"", reason);
        }
        if listener.protocol == "HTTPS" && listener.tls.is_none() {
            check.error(&format!("{path}.tls"), "Required value: HTTPS needs a certificate");
        }
        let namespaces = &listener.allowed_routes.namespaces;
        if namespaces.from == FromNamespaces::Selector && namespaces.selector.is_none() {
            check.error(&format!("{path}.allowedRoutes.namespaces.selector"), "Required value");
        }
    }
}

pub(super) fn http_route(spec: &HttpRoute, check: &mut Check<'_>) {
    for (at, name) in spec.hostnames.iter().enumerate() {
        check.wildcard_host(&format!("spec.hostnames[{at}]"), name);
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        self::rule(&format!("spec.rules[{index}]"), rule, check);
    }
}

fn rule(path: &str, rule: &HttpRouteRule, check: &mut Check<'_>) {
    matches(path, rule, check);
    let redirects = rule.filters.iter().any(|it| it.r#type == HttpRouteFilterType::RequestRedirect);
    if redirects && !rule.backend_refs.is_empty() {
        let reason = "RequestRedirect filter must not be used together with backendRefs";
        check.invalid(path, "\"object\"", reason);
    }
    let rewrites = rule.filters.iter().any(|it| it.r#type == HttpRouteFilterType::UrlRewrite);
    if redirects && rewrites {
        let reason = "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both";
        check.invalid(&format!("{path}.filters"), "\"array\"", reason);
    }
    let by_prefix = !rule.matches.is_empty()
        && rule.matches.iter().all(|it| it.path.r#type == PathMatchType::PathPrefix);
    for (at, filter) in rule.filters.iter().enumerate() {
        let path = format!("{path}.filters[{at}]");
        self::filter(&path, filter, check);
        let modifiers = [
            filter.url_rewrite.as_ref().and_then(|it| it.path.as_ref()),
            filter.request_redirect.as_ref().and_then(|it| it.path.as_ref()),
        ];
        if modifiers.into_iter().flatten().any(matches_prefix)
            && !by_prefix
            && !rule.matches.is_empty()
        {
            let reason = "ReplacePrefixMatch needs matches by PathPrefix";
            check.error(&path, reason);
        }
    }
    for (at, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{at}]");
        if backend.group.is_empty() && backend.kind == "Service" && backend.port.is_none() {
            check.error(
                &format!("{path}.port"),
                "Required value: Must have port for Service reference",
            );
        }
        for (index, filter) in backend.filters.iter().enumerate() {
            self::filter(&format!("{path}.filters[{index}]"), filter, check);
        }
    }
    if let Some(timeouts) = &rule.timeouts
        && let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request)
        && backend > request
        && !request.is_zero()
    {
        let reason = "backendRequest timeout cannot be longer than request timeout";
        check.invalid(&format!("{path}.timeouts"), "\"object\"", reason);
    }
}

fn matches(path: &str, rule: &HttpRouteRule, check: &mut Check<'_>) {
    for (at, matched) in rule.matches.iter().enumerate() {
        let path = format!("{path}.matches[{at}]");
        let value = &matched.path.value;
        if matched.path.r#type == PathMatchType::RegularExpression {
            check.regex(&format!("{path}.path.value"), value);
        } else if !value.starts_with('/') {
            check.invalid(
                &format!("{path}.path.value"),
                format!("{value:?}"),
                "must begin with '/'",
            );
        }
        for (index, header) in matched.headers.iter().enumerate() {
            check.header_name(&format!("{path}.headers[{index}].name"), &header.name);
        }
    }
}

fn matches_prefix(modifier: &PathModifier) -> bool {
    modifier.r#type == PathModifierType::ReplacePrefixMatch
}

/// A filter's `type` names the one field that is set.
fn filter(path: &str, filter: &HttpRouteFilter, check: &mut Check<'_>) {
    use HttpRouteFilterType as Type;
    let fields = [
        (
            Type::RequestHeaderModifier,
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            Type::ResponseHeaderModifier,
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (Type::RequestMirror, "requestMirror", filter.request_mirror.is_some()),
        (Type::RequestRedirect, "requestRedirect", filter.request_redirect.is_some()),
        (Type::UrlRewrite, "urlRewrite", filter.url_rewrite.is_some()),
        (Type::Cors, "cors", filter.cors.is_some()),
        (Type::ExternalAuth, "externalAuth", filter.external_auth.is_some()),
        (Type::ExtensionRef, "extensionRef", filter.extension_ref.is_some()),
    ];
    for (kind, field, given) in fields {
        let wanted = filter.r#type == kind;
        if wanted != given {
            let reason = if wanted {
                "must be specified for this filter.type"
            } else {
                "must be nil for this filter.type"
            };
            check.invalid(path, "\"object\"", format!("filter.{field} {reason}"));
        }
    }
}
