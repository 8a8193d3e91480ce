//! One rule of a policy: what its sources, operations and conditions demand, as permissions and principals.

use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::rbac::v3::rbac::Action;
use xds::envoy::config::rbac::v3::{Permission, Policy, Principal, permission, principal};
use xds::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use xds::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use xds::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher};

use super::attribute::{Attribute, attribute, in_brackets, is_of_request};
use super::{Layer, matcher, token, trust};
use crate::model::Mesh;
use crate::model::istio::authorization_policy::{Condition, Operation, Rule, Source};
use crate::translate::values;

const SPIFFE: &str = "spiffe://";

/// What a rule is read for.
pub(super) struct Context<'a> {
    pub mesh: &'a Mesh,
    /// The policy's namespace.
    pub namespace: &'a str,
    pub action: Action,
    pub layer: Layer,
}

/// What cannot be told, or is not written as it should be.
struct Unfit;

/// An attribute with the values that it must have, and those that it must not have.
#[derive(Debug, Clone)]
struct Test {
    attribute: Attribute,
    values: Vec<String>,
    not_values: Vec<String>,
}

impl Test {
    fn new(attribute: Attribute, values: &[String], not_values: &[String]) -> Option<Self> {
        if values.is_empty() && not_values.is_empty() {
            return None;
        }
        Some(Self { attribute, values: values.to_vec(), not_values: not_values.to_vec() })
    }
}

impl Context<'_> {
    /// The rule as Envoy has it; none if it cannot fit anything, or cannot be told.
    pub(super) fn policy(&self, rule: &Rule) -> Option<Policy> {
        let mut wanted = Vec::new();
        let mut asking = Vec::new();
        for Condition { key, values, not_values } in &rule.when {
            let attribute = attribute(key)?;
            let into = if is_of_request(&attribute) { &mut wanted } else { &mut asking };
            into.extend(Test::new(attribute, values, not_values));
        }
        let mut principals = Vec::new();
        for from in &rule.from {
            let mut tests = from.source.as_ref().map(of_source).unwrap_or_default();
            tests.extend(asking.iter().cloned());
            principals.push(self.principal(&tests).ok()?);
        }
        if rule.from.is_empty() {
            principals.push(self.principal(&asking).ok()?);
        }
        let mut permissions = Vec::new();
        for to in &rule.to {
            let mut tests = to.operation.as_ref().map(of_operation).unwrap_or_default();
            tests.extend(wanted.iter().cloned());
            permissions.push(self.permission(&tests).ok()?);
        }
        if rule.to.is_empty() {
            permissions.push(self.permission(&wanted).ok()?);
        }
        Some(Policy { permissions, principals, ..Policy::default() })
    }

    fn permission(&self, tests: &[Test]) -> Result<Permission, Unfit> {
        let mut all = Vec::new();
        for test in tests {
            all.extend(self.permission_for(&test.attribute, &test.values)?);
            if let Some(not) = self.permission_for(&test.attribute, &test.not_values)? {
                let not = permission::Rule::NotRule(Box::new(not));
                all.push(Permission { rule: Some(not) });
            }
        }
        if all.is_empty() {
            all.push(Permission { rule: Some(permission::Rule::Any(true)) });
        }
        let all = permission::Set { rules: all };
        Ok(Permission { rule: Some(permission::Rule::AndRules(all)) })
    }

    /// One of the values; none if there are none.
    fn permission_for(
        &self,
        attribute: &Attribute,
        values: &[String],
    ) -> Result<Option<Permission>, Unfit> {
        if let Attribute::Metadata(filter, key) = attribute {
            if values.is_empty() {
                return Ok(None);
            }
            let value = |value: &String| match in_brackets(value) {
                Some(inner) => matcher::list_value(matcher::text_value(matcher::pattern(inner))),
                None => matcher::text_value(matcher::pattern(value)),
            };
            let values = matcher::any_value(values.iter().map(value).collect());
            let metadata = matcher::metadata(filter, &[key], values);
            return Ok(Some(Permission { rule: Some(permission::Rule::Metadata(metadata)) }));
        }
        let mut any = Vec::new();
        for value in values {
            let rule = self.bearable(permission_of(attribute, value, self.layer))?;
            any.extend(rule.map(|rule| Permission { rule: Some(rule) }));
        }
        let any = permission::Set { rules: any };
        let rule = (!any.rules.is_empty()).then_some(permission::Rule::OrRules(any));
        Ok(rule.map(|rule| Permission { rule: Some(rule) }))
    }

    fn principal(&self, tests: &[Test]) -> Result<Principal, Unfit> {
        let mut all = Vec::new();
        for test in tests {
            all.extend(self.principal_for(&test.attribute, &test.values)?);
            if let Some(not) = self.principal_for(&test.attribute, &test.not_values)? {
                let not = principal::Identifier::NotId(Box::new(not));
                all.push(Principal { identifier: Some(not) });
            }
        }
        if all.is_empty() {
            all.push(Principal { identifier: Some(principal::Identifier::Any(true)) });
        }
        Ok(and(all))
    }

    /// One of the values; none if there are none.
    fn principal_for(
        &self,
        attribute: &Attribute,
        values: &[String],
    ) -> Result<Option<Principal>, Unfit> {
        if values.is_empty() {
            return Ok(None);
        }
        let domains = || {
            let config = &self.mesh.config;
            let aliases = config.trust_domain_aliases.iter().map(String::as_str);
            [config.trust_domain.as_str()].into_iter().chain(aliases).collect::<Vec<_>>()
        };
        let expanded = match attribute {
            Attribute::Principal => trust::principals(values, &domains()),
            Attribute::TrustDomain => trust::domains(values, &domains()),
            Attribute::RequestPrincipal | Attribute::Claims(_) => {
                let found = (self.layer == Layer::Http).then(|| token::with(attribute, values));
                return self.bearable(found.ok_or(Unfit));
            }
            _ => values.to_vec(),
        };
        let mut any = Vec::new();
        for value in &expanded {
            any.extend(self.bearable(self.principal_of(attribute, value))?);
        }
        Ok((!any.is_empty()).then(|| or(any)))
    }

    fn principal_of(&self, attribute: &Attribute, value: &str) -> Result<Principal, Unfit> {
        let identifier = match attribute {
            Attribute::SourceIp => {
                principal::Identifier::DirectRemoteIp(matcher::range(value).ok_or(Unfit)?)
            }
            Attribute::RemoteIp => {
                principal::Identifier::RemoteIp(matcher::range(value).ok_or(Unfit)?)
            }
            Attribute::Header(name) if self.layer == Layer::Http => {
                principal::Identifier::Header(matcher::header(name, value, false))
            }
            Attribute::Namespace => {
                let parts: Vec<_> = value.split('*').map(matcher::quoted).collect();
                authenticated(matcher::regex(&format!(".*/ns/{}/.*", parts.join(".*"))))
            }
            Attribute::TrustDomain => authenticated(in_domain(value)),
            Attribute::ServiceAccount => {
                let (namespace, account) = value.split_once('/').unwrap_or((self.namespace, value));
                let (namespace, account) = (matcher::quoted(namespace), matcher::quoted(account));
                // Other parts may stand between the two, and after them.
                let regex = format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?");
                authenticated(matcher::regex(&regex))
            }
            Attribute::Principal => authenticated(matcher::with_prefix(SPIFFE, value)),
            _ => return Err(Unfit),
        };
        Ok(Principal { identifier: Some(identifier) })
    }

    /// Where something is allowed, what cannot be told makes the whole rule fit nothing; elsewhere it is left out, so
    /// that more fits.
    fn bearable<T>(&self, result: Result<T, Unfit>) -> Result<Option<T>, Unfit> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(unfit) if self.action == Action::Allow => Err(unfit),
            Err(_) => Ok(None),
        }
    }
}

fn of_source(source: &Source) -> Vec<Test> {
    let tests = [
        Test::new(Attribute::Principal, &source.principals, &source.not_principals),
        Test::new(
            Attribute::RequestPrincipal,
            &source.request_principals,
            &source.not_request_principals,
        ),
        Test::new(
            Attribute::ServiceAccount,
            &source.service_accounts,
            &source.not_service_accounts,
        ),
        Test::new(Attribute::TrustDomain, &source.trust_domains, &source.not_trust_domains),
        Test::new(Attribute::Namespace, &source.namespaces, &source.not_namespaces),
        Test::new(Attribute::RemoteIp, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        Test::new(Attribute::SourceIp, &source.ip_blocks, &source.not_ip_blocks),
    ];
    tests.into_iter().flatten().collect()
}

fn of_operation(operation: &Operation) -> Vec<Test> {
    let tests = [
        Test::new(Attribute::Host, &operation.hosts, &operation.not_hosts),
        Test::new(Attribute::Method, &operation.methods, &operation.not_methods),
        Test::new(Attribute::Path, &operation.paths, &operation.not_paths),
        Test::new(Attribute::DestinationPort, &operation.ports, &operation.not_ports),
    ];
    tests.into_iter().flatten().collect()
}

fn permission_of(
    attribute: &Attribute,
    value: &str,
    layer: Layer,
) -> Result<permission::Rule, Unfit> {
    Ok(match attribute {
        Attribute::DestinationIp => {
            permission::Rule::DestinationIp(matcher::range(value).ok_or(Unfit)?)
        }
        Attribute::DestinationPort => {
            let port: u16 = value.parse().map_err(|_| Unfit)?;
            permission::Rule::DestinationPort(port.into())
        }
        Attribute::Sni => permission::Rule::RequestedServerName(matcher::pattern(value)),
        Attribute::Host if layer == Layer::Http => {
            permission::Rule::Header(matcher::header(":authority", value, true))
        }
        Attribute::Method if layer == Layer::Http => {
            permission::Rule::Header(matcher::header(":method", value, false))
        }
        Attribute::Path if layer == Layer::Http => path(value),
        _ => return Err(Unfit),
    })
}

fn path(value: &str) -> permission::Rule {
    if value.contains("{*}") || value.contains("{**}") {
        let path_template = value.replace("{*}", "*").replace("{**}", "**");
        let template = UriTemplateMatchConfig { path_template };
        return permission::Rule::UriTemplate(TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(values::any(&template)),
        });
    }
    let rule = Some(PathRule::Path(matcher::pattern(value)));
    permission::Rule::UrlPath(PathMatcher { rule })
}

/// An identity of a trust domain.
fn in_domain(value: &str) -> StringMatcher {
    match value.split_once('*') {
        _ if value == "*" => matcher::prefix(SPIFFE),
        None => matcher::prefix(&format!("{SPIFFE}{value}/")),
        Some((before, after)) => {
            let (before, after) = (matcher::quoted(before), matcher::quoted(after));
            matcher::regex(&format!("{SPIFFE}{before}[^/]*{after}/.*"))
        }
    }
}

fn authenticated(name: StringMatcher) -> principal::Identifier {
    principal::Identifier::Authenticated(principal::Authenticated { principal_name: Some(name) })
}

pub(super) fn and(ids: Vec<Principal>) -> Principal {
    Principal { identifier: Some(principal::Identifier::AndIds(principal::Set { ids })) }
}

pub(super) fn or(ids: Vec<Principal>) -> Principal {
    Principal { identifier: Some(principal::Identifier::OrIds(principal::Set { ids })) }
}
