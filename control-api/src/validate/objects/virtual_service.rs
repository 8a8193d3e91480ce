//! `VirtualService`: each rule does one thing, with matches, weights and headers that make sense.

use std::collections::BTreeMap;

use super::check::Check;
use super::host;
use super::unreachable;
use crate::model::istio::virtual_service::{
    Destination, Headers, HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRoute,
    HttpRouteDestination, RouteDestination, StringMatch, TlsRoute, VirtualService,
};

/// Headers that are really claims of a JWT.
const CLAIM: &str = "@request.auth.claims";

pub(super) fn check(spec: &VirtualService, check: &mut Check<'_>) {
    let delegate = spec.hosts.is_empty();
    if delegate {
        for (given, field) in [
            (!spec.gateways.is_empty(), "gateways"),
            (!spec.tls.is_empty(), "tls"),
            (!spec.tcp.is_empty(), "tcp"),
        ] {
            if given {
                let reason = "must not be set in a delegate, which is what has no hosts";
                check.error(&format!("spec.{field}"), reason);
            }
        }
    }
    let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|it| it == "mesh");
    hosts(spec, in_mesh, check);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        check.error("spec", "http, tcp or tls must be provided in virtual service");
    }
    for (index, route) in spec.http.iter().enumerate() {
        http_route(&format!("spec.http[{index}]"), route, delegate, check);
    }
    if spec.gateways.iter().all(|gateway| gateway == "mesh") {
        claims(spec, check);
    }
    for (index, route) in spec.tls.iter().enumerate() {
        tls_route(&format!("spec.tls[{index}]"), route, &spec.hosts, check);
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        let path = format!("spec.tcp[{index}]");
        for (at, matched) in route.r#match.iter().enumerate() {
            let path = format!("{path}.match[{at}]");
            subnets(&path, &matched.destination_subnets, check);
            if matched.port != 0 {
                check.port(&format!("{path}.port"), matched.port);
            }
        }
        destinations(&path, &route.route, check);
    }
    check.export_to(&spec.export_to, false);
    unreachable::check(spec, check);
}

fn hosts(spec: &VirtualService, in_mesh: bool, check: &mut Check<'_>) {
    for (index, name) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if name == "*" && in_mesh {
            let reason =
                "wildcard host * is not allowed for virtual services bound to the mesh gateway";
            check.error(&path, reason).fix("name the hosts, or name a gateway in spec.gateways");
        } else {
            check.wildcard_host(&path, name);
        }
    }
    check.unique("spec.hosts", "", spec.hosts.iter().map(String::as_str));
}

/// Claims are known only where a JWT was checked before routing: at gateways.
fn claims(spec: &VirtualService, check: &mut Check<'_>) {
    for (rule, route) in spec.http.iter().enumerate() {
        for (at, matched) in route.r#match.iter().enumerate() {
            for name in matched.headers.keys().chain(matched.without_headers.keys()) {
                if name.starts_with(CLAIM) {
                    let path = format!("spec.http[{rule}].match[{at}]");
                    let reason = "routing by claims of a JWT is only possible at a gateway";
                    check.error(&path, format!("{name}: {reason}"));
                }
            }
        }
    }
}

fn http_route(path: &str, route: &HttpRoute, in_delegate: bool, check: &mut Check<'_>) {
    let actions = [
        (!route.route.is_empty(), "route"),
        (route.redirect.is_some(), "redirect"),
        (route.direct_response.is_some(), "directResponse"),
        (route.delegate.is_some(), "delegate"),
    ];
    let given: Vec<_> = actions.iter().filter(|it| it.0).map(|it| it.1).collect();
    match given.as_slice() {
        [] => {
            check.error(path, "one of route, redirect, directResponse or delegate must be set");
        }
        [_] => {}
        [first, rest @ ..] => {
            let reason = format!("cannot be set beside {}", rest.join(" and "));
            check.error(&format!("{path}.{first}"), reason);
        }
    }
    if in_delegate && route.delegate.is_some() {
        check.error(&format!("{path}.delegate"), "a delegate cannot delegate further");
    }
    for (at, matched) in route.r#match.iter().enumerate() {
        http_match(&format!("{path}.match[{at}]"), matched, check);
    }
    headers(&format!("{path}.headers"), route.headers.as_ref(), check);
    if let Some(fault) = &route.fault {
        http_fault(&format!("{path}.fault"), fault, check);
    }
    if let Some(redirect) = &route.redirect {
        http_redirect(&format!("{path}.redirect"), redirect, check);
    }
    if let Some(response) = &route.direct_response
        && !(200..=599).contains(&response.status)
    {
        let reason = "must be a status from 200 to 599";
        check.invalid(&format!("{path}.directResponse.status"), response.status, reason);
    }
    http_mirrors(path, route, check);
    if let Some(retries) = &route.retries {
        check.not_negative(&format!("{path}.retries.attempts"), retries.attempts.into());
    }
    if let Some(rewrite) = &route.rewrite {
        let empty = rewrite.uri.is_empty()
            && rewrite.authority.is_empty()
            && rewrite.uri_regex_rewrite.is_none();
        if empty {
            check.error(
                &format!("{path}.rewrite"),
                "must say what: uri, authority or uriRegexRewrite",
            );
        }
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            check.regex(&format!("{path}.rewrite.uriRegexRewrite.match"), &regex.r#match);
        }
    }
    weights(&format!("{path}.route"), &route.route, check);
}

fn http_match(path: &str, matched: &HttpMatchRequest, check: &mut Check<'_>) {
    let one = [
        ("uri", &matched.uri),
        ("scheme", &matched.scheme),
        ("method", &matched.method),
        ("authority", &matched.authority),
    ];
    for (field, value) in one {
        if let Some(value) = value {
            string_match(&format!("{path}.{field}"), value, check);
        }
    }
    let maps = [
        ("headers", &matched.headers),
        ("withoutHeaders", &matched.without_headers),
        ("queryParams", &matched.query_params),
    ];
    for (field, map) in maps {
        for (name, value) in map {
            let path = format!("{path}.{field}[{name}]");
            if field != "queryParams" {
                check.header_name(&path, name);
            }
            // `regex: "*"` is no expression, and still means that the header is there at all.
            if *value != StringMatch::Regex("*".into()) {
                string_match(&path, value, check);
            }
        }
    }
    if matched.port != 0 {
        check.port(&format!("{path}.port"), matched.port);
    }
    if !matched.source_namespace.is_empty() && !host::is_dns_label(&matched.source_namespace) {
        let value = format!("{:?}", matched.source_namespace);
        check.invalid(&format!("{path}.sourceNamespace"), value, "must be a namespace");
    }
}

fn string_match(path: &str, value: &StringMatch, check: &mut Check<'_>) {
    match value {
        StringMatch::Exact(_) | StringMatch::Present => {}
        StringMatch::Prefix(prefix) => check.min_length(&format!("{path}.prefix"), prefix),
        StringMatch::Regex(regex) => check.regex(&format!("{path}.regex"), regex),
    }
}

fn headers(path: &str, headers: Option<&Headers>, check: &mut Check<'_>) {
    let Some(headers) = headers else { return };
    for (side, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        let named = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
        let fields = [
            ("set", named(&operations.set)),
            ("add", named(&operations.add)),
            ("remove", operations.remove.clone()),
        ];
        for (field, names) in fields {
            for name in names {
                check.header_name(&format!("{path}.{side}.{field}"), &name);
            }
        }
    }
}

fn http_fault(path: &str, fault: &HttpFaultInjection, check: &mut Check<'_>) {
    if fault.delay.is_none() && fault.abort.is_none() {
        check.error(path, "must have a delay, an abort, or both");
    }
    if let Some(delay) = &fault.delay {
        if delay.fixed_delay.is_none() && delay.exponential_delay.is_none() {
            check.error(&format!("{path}.delay.fixedDelay"), "Required value");
        }
        if let Some(percentage) = &delay.percentage {
            check.percent(&format!("{path}.delay.percentage.value"), percentage.value);
        }
        check.percent(&format!("{path}.delay.percent"), delay.percent.into());
    }
    if let Some(abort) = &fault.abort {
        if let Some(status) = abort.http_status
            && !(200..=600).contains(&status)
        {
            let reason = "must be a status from 200 to 600";
            check.invalid(&format!("{path}.abort.httpStatus"), status, reason);
        }
        if abort.http_status.is_none() && abort.grpc_status.is_none() {
            check.error(&format!("{path}.abort.httpStatus"), "Required value");
        }
        match &abort.percentage {
            Some(percentage) => {
                check.percent(&format!("{path}.abort.percentage.value"), percentage.value);
            }
            None => {
                let reason = "abort percentage is not set, so nothing is aborted";
                check.warn(&format!("{path}.abort"), reason).fix("set percentage.value");
            }
        }
    }
}

fn http_redirect(path: &str, redirect: &HttpRedirect, check: &mut Check<'_>) {
    let empty = redirect.uri.is_empty()
        && redirect.authority.is_empty()
        && redirect.scheme.is_empty()
        && redirect.prefix_rewrite.is_empty()
        && redirect.port.is_none()
        && redirect.derive_port.is_none();
    if empty {
        check.error(path, "redirect must specify URI, authority, scheme, or port");
    }
    if !matches!(redirect.redirect_code, 0 | 300..=399) {
        let reason = "must be a redirect's status, from 300 to 399";
        check.invalid(&format!("{path}.redirectCode"), redirect.redirect_code, reason);
    }
    if !redirect.scheme.is_empty() && !matches!(redirect.scheme.as_str(), "http" | "https") {
        let value = format!("{:?}", redirect.scheme);
        check.invalid(&format!("{path}.scheme"), value, "must be http or https");
    }
}

fn http_mirrors(path: &str, route: &HttpRoute, check: &mut Check<'_>) {
    if let Some(mirror) = &route.mirror {
        destination(&format!("{path}.mirror"), Some(mirror), check);
        if !route.mirrors.is_empty() {
            check.error(&format!("{path}.mirror"), "cannot be set beside mirrors");
        }
    }
    for (at, mirror) in route.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{at}]");
        destination(&format!("{path}.destination"), mirror.destination.as_ref(), check);
        if let Some(percentage) = &mirror.percentage {
            check.percent(&format!("{path}.percentage.value"), percentage.value);
        }
    }
    if let Some(percentage) = &route.mirror_percentage {
        check.percent(&format!("{path}.mirrorPercentage.value"), percentage.value);
    }
    if let Some(percent) = route.mirror_percent {
        check.percent(&format!("{path}.mirrorPercent"), percent.into());
        let reason = "using deprecated setting \"mirrorPercent\"";
        check.warn(&format!("{path}.mirrorPercent"), reason).fix("use mirrorPercentage.value");
    }
}

fn weights(path: &str, routes: &[HttpRouteDestination], check: &mut Check<'_>) {
    for (at, route) in routes.iter().enumerate() {
        let path = format!("{path}[{at}]");
        destination(&format!("{path}.destination"), route.destination.as_ref(), check);
        check.not_negative(&format!("{path}.weight"), route.weight.into());
        headers(&format!("{path}.headers"), route.headers.as_ref(), check);
    }
    let total: i64 = routes.iter().map(|route| i64::from(route.weight)).sum();
    if routes.len() > 1 && total == 0 {
        check.error(path, "total destination weight = 0").fix("give the destinations weights");
    }
}

fn tls_route(path: &str, route: &TlsRoute, hosts: &[String], check: &mut Check<'_>) {
    if route.r#match.is_empty() {
        check.error(path, "TLS route must have at least one match condition");
    }
    for (at, matched) in route.r#match.iter().enumerate() {
        let path = format!("{path}.match[{at}]");
        if matched.sni_hosts.is_empty() {
            check.error(&format!("{path}.sniHosts"), "Required value");
        }
        for (index, name) in matched.sni_hosts.iter().enumerate() {
            let path = format!("{path}.sniHosts[{index}]");
            check.wildcard_host(&path, name);
            if !hosts.iter().any(|host| covers(host, name)) {
                let reason = "is none of spec.hosts, and no part of one with a wildcard";
                check.invalid(&path, format!("{name:?}"), reason);
            }
        }
        subnets(&path, &matched.destination_subnets, check);
        if matched.port != 0 {
            check.port(&format!("{path}.port"), matched.port);
        }
    }
    destinations(path, &route.route, check);
}

/// Whether every name that `inner` stands for is also one of `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    outer == inner || outer.strip_prefix('*').is_some_and(|suffix| inner.ends_with(suffix))
}

fn subnets(path: &str, subnets: &[String], check: &mut Check<'_>) {
    for (index, subnet) in subnets.iter().enumerate() {
        check.subnet(&format!("{path}.destinationSubnets[{index}]"), subnet);
    }
}

fn destinations(path: &str, routes: &[RouteDestination], check: &mut Check<'_>) {
    if routes.is_empty() {
        check.error(&format!("{path}.route"), "Required value");
    }
    for (at, route) in routes.iter().enumerate() {
        let path = format!("{path}.route[{at}]");
        destination(&format!("{path}.destination"), route.destination.as_ref(), check);
        check.not_negative(&format!("{path}.weight"), route.weight.into());
    }
}

fn destination(path: &str, destination: Option<&Destination>, check: &mut Check<'_>) {
    let Some(destination) = destination else {
        check.error(path, "Required value");
        return;
    };
    let host = &destination.host;
    if host == "*" {
        check.error(&format!("{path}.host"), "invalid destination host *");
    } else if host.is_empty() {
        check.required(&format!("{path}.host"), host);
    } else {
        check.wildcard_host(&format!("{path}.host"), host);
    }
    if !destination.subset.is_empty() && !host::is_dns_label(&destination.subset) {
        let value = format!("{:?}", destination.subset);
        check.invalid(
            &format!("{path}.subset"),
            value,
            "must be in lower case, with digits and '-'",
        );
    }
    if let Some(port) = &destination.port {
        check.port(&format!("{path}.port.number"), port.number);
    }
}
