//! `AuthorizationPolicy`, `PeerAuthentication` and `RequestAuthentication`: rules that can be met.

use super::check::Check;
use super::host;
use crate::model::istio::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use crate::model::istio::peer_authentication::PeerAuthentication;
use crate::model::istio::request_authentication::{JwtRule, RequestAuthentication};

/// Attributes of conditions, without those that take a name in brackets.
const ATTRIBUTES: [&str; 11] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
];

pub(super) fn authorization_policy(spec: &AuthorizationPolicy, check: &mut Check<'_>) {
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    let never = matches!(spec.action, Action::Deny | Action::Custom) && spec.rules.is_empty();
    if never {
        let reason = format!("{:?} without rules never applies", spec.action);
        check.error("spec.rules", reason).fix("add the rule {}, which is every request");
    }
    match &spec.provider {
        Some(provider) if spec.action == Action::Custom => {
            check.required("spec.provider.name", &provider.name);
        }
        Some(_) => {
            check.error("spec.provider", "`provider` must not be with non CUSTOM action");
        }
        None if spec.action == Action::Custom => {
            check.error("spec.provider.name", "Required value");
        }
        None => {}
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        self::rule(&format!("spec.rules[{index}]"), rule, check);
        if spec.action == Action::Custom {
            custom(&format!("spec.rules[{index}]"), rule, check);
        }
        if spec.action == Action::Deny && only_http(rule) {
            let reason =
                "on TCP ports this rule denies all traffic, as it asks only for facts of HTTP";
            let finding = check.warn(&format!("spec.rules[{index}]"), reason);
            finding.fix("name the ports in to.operation.ports");
        }
    }
}

fn only_http(rule: &Rule) -> bool {
    let tcp_source = |source: &Source| {
        let lists = [
            &source.principals,
            &source.not_principals,
            &source.ip_blocks,
            &source.not_ip_blocks,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            &source.namespaces,
            &source.not_namespaces,
            &source.service_accounts,
            &source.not_service_accounts,
        ];
        lists.iter().any(|list| !list.is_empty())
    };
    let tcp_from = rule.from.iter().filter_map(|from| from.source.as_ref()).any(tcp_source);
    let mut to = rule.to.iter().filter_map(|to| to.operation.as_ref()).peekable();
    if to.peek().is_none() {
        return !rule.from.is_empty() && !tcp_from;
    }
    !to.any(|operation| !operation.ports.is_empty() || !operation.not_ports.is_empty())
}

fn rule(path: &str, rule: &Rule, check: &mut Check<'_>) {
    for (at, from) in rule.from.iter().enumerate() {
        let path = format!("{path}.from[{at}].source");
        match &from.source {
            None => {
                check.error(&path, "Required value");
            }
            Some(source) if *source == Source::default() => {
                check.error(&path, "`from.source` must not be empty");
            }
            Some(source) => self::source(&path, source, check),
        }
    }
    for (at, to) in rule.to.iter().enumerate() {
        let path = format!("{path}.to[{at}].operation");
        match &to.operation {
            None => {
                check.error(&path, "Required value");
            }
            Some(operation) if *operation == Operation::default() => {
                check.error(&path, "`to.operation` must not be empty");
            }
            Some(operation) => self::operation(&path, operation, check),
        }
    }
    for (at, when) in rule.when.iter().enumerate() {
        condition(&format!("{path}.when[{at}]"), when, check);
    }
}

fn source(path: &str, source: &Source, check: &mut Check<'_>) {
    let lists = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    for (field, values) in lists {
        check.not_empty(&format!("{path}.{field}"), values);
    }
    let blocks = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (field, values) in blocks {
        for (at, value) in values.iter().enumerate() {
            check.subnet(&format!("{path}.{field}[{at}]"), value);
        }
    }
    let accounts = !(source.service_accounts.is_empty() && source.not_service_accounts.is_empty());
    let others =
        [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    if accounts && others.iter().any(|list| !list.is_empty()) {
        check.error(path, "cannot set serviceAccounts with namespaces or principals");
    }
    for (field, values) in lists.iter().filter(|(field, _)| field.ends_with("erviceAccounts")) {
        for (at, value) in values.iter().enumerate() {
            if value.matches('/').count() > 1 || value.contains('*') {
                let reason = "must be a service account, or namespace/service-account";
                check.invalid(&format!("{path}.{field}[{at}]"), format!("{value:?}"), reason);
            }
        }
    }
}

fn operation(path: &str, operation: &Operation, check: &mut Check<'_>) {
    let lists = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    for (field, values) in lists {
        check.not_empty(&format!("{path}.{field}"), values);
    }
    for (field, values) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        for (at, value) in values.iter().enumerate() {
            if value.parse::<u16>().map_or(true, |port| port == 0) {
                let reason = "port must be between 1-65535";
                check.invalid(&format!("{path}.{field}[{at}]"), format!("{value:?}"), reason);
            }
        }
    }
}

fn condition(path: &str, condition: &Condition, check: &mut Check<'_>) {
    let Condition { key, values, not_values } = condition;
    check.required(&format!("{path}.key"), key);
    if values.is_empty() && not_values.is_empty() {
        check.error(path, "at least one of `values` or `notValues` must be set");
    }
    let known = ATTRIBUTES.contains(&key.as_str())
        || key == "connection.sni"
        || key.starts_with("experimental.envoy.filters.")
        || ["request.headers", "request.auth.claims"].iter().any(|attribute| {
            key.strip_prefix(attribute)
                .is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2)
        });
    if !known && !key.is_empty() {
        let path = format!("{path}.key");
        let finding = check.error(&path, format!("Invalid value: {key:?}: unknown attribute"));
        if let Some(meant) = xds::yaml::nearest(key, ATTRIBUTES.into_iter()) {
            finding.fix(format!("perhaps {meant}"));
        }
    }
    for (field, values) in [("values", values), ("notValues", not_values)] {
        for (at, value) in values.iter().enumerate() {
            let path = format!("{path}.{field}[{at}]");
            match key.as_str() {
                "source.ip" | "remote.ip" | "destination.ip" => check.subnet(&path, value),
                "destination.port" if value.parse::<u16>().map_or(true, |port| port == 0) => {
                    check.invalid(&path, format!("{value:?}"), "port must be between 1-65535");
                }
                _ => {}
            }
        }
    }
}

/// What an external authorizer's rules cannot ask for: it is called before these facts are known.
fn custom(path: &str, rule: &Rule, check: &mut Check<'_>) {
    for (at, source) in rule.from.iter().enumerate() {
        let Some(source) = &source.source else { continue };
        let lists = [
            ("namespaces", &source.namespaces),
            ("notNamespaces", &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts),
            ("notServiceAccounts", &source.not_service_accounts),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
            ("principals", &source.principals),
            ("notPrincipals", &source.not_principals),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
        ];
        for (field, _) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            let path = format!("{path}.from[{at}].source.{field}");
            check.error(&path, "is not supported with the action CUSTOM");
        }
    }
    let unknown =
        ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    for (at, when) in rule.when.iter().enumerate() {
        if unknown.contains(&when.key.as_str()) || when.key.starts_with("request.auth.") {
            let reason = format!("{} is not supported with the action CUSTOM", when.key);
            check.error(&format!("{path}.when[{at}].key"), reason);
        }
    }
}

pub(super) fn peer_authentication(spec: &PeerAuthentication, check: &mut Check<'_>) {
    check.selector(spec.selector.as_ref());
    let path = "spec.portLevelMtls";
    let Some(ports) = &spec.port_level_mtls else { return };
    if ports.is_empty() {
        let reason = format!("{path} in body should have at least 1 properties");
        check.invalid(path, 0, reason);
    }
    for number in ports.keys() {
        check.port(&format!("{path}[{number}]"), *number);
    }
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if !selects && !ports.is_empty() {
        let reason = "portLevelMtls requires selector";
        check.invalid("spec", "\"object\"", reason);
    }
}

pub(super) fn request_authentication(spec: &RequestAuthentication, check: &mut Check<'_>) {
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        jwt_rule(&format!("spec.jwtRules[{index}]"), rule, check);
    }
}

fn jwt_rule(path: &str, rule: &JwtRule, check: &mut Check<'_>) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        check.error(&format!("{path}.issuer"), "Required value: or a jwksUri");
    }
    let lists = [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ];
    for (field, values) in lists {
        check.not_empty(&format!("{path}.{field}"), values);
    }
    for (at, header) in rule.from_headers.iter().enumerate() {
        check.required(&format!("{path}.fromHeaders[{at}].name"), &header.name);
    }
    for (at, output) in rule.output_claim_to_headers.iter().enumerate() {
        let path = format!("{path}.outputClaimToHeaders[{at}]");
        check.required(&format!("{path}.claim"), &output.claim);
        check.required(&format!("{path}.header"), &output.header);
    }
    if let Some(rest) = rule.jwks_uri.split_once("://") {
        let authority = rest.1.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        if !matches!(rest.0, "http" | "https")
            || !(host::is_fqdn(host) || authority.starts_with('['))
        {
            let value = format!("{:?}", rule.jwks_uri);
            check.invalid(&format!("{path}.jwksUri"), value, "must be an http or https URL");
        }
    } else if !rule.jwks_uri.is_empty() {
        let value = format!("{:?}", rule.jwks_uri);
        check.invalid(&format!("{path}.jwksUri"), value, "must be an http or https URL");
    }
    if !rule.jwks.is_empty() {
        if !rule.jwks_uri.is_empty() {
            check.error(&format!("{path}.jwks"), "cannot be set beside jwksUri");
        }
        let keys = serde_json::from_str::<serde_json::Value>(&rule.jwks);
        if !keys.is_ok_and(|jwks| jwks.get("keys").is_some_and(serde_json::Value::is_array)) {
            check.error(
                &format!("{path}.jwks"),
                "must be JSON with a list of keys, as RFC 7517 has it",
            );
        }
    }
}
