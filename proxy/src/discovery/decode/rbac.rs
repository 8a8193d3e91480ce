//! Policies of permissions and principals, and the filters that ask them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::rbac::v3::permission::Rule;
use xds::envoy::config::rbac::v3::principal::{Authenticated, Identifier};
use xds::envoy::config::rbac::v3::rbac::Action;
use xds::envoy::config::rbac::v3::{
    MetadataSource, Permission, Policy, Principal, Rbac, SourcedMetadata, permission, principal,
};
use xds::envoy::extensions::filters::http::rbac::v3::{Rbac as HttpRbac, RbacPerRoute};
use xds::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use xds::envoy::extensions::filters::network::rbac::v3::rbac::EnforcementType;
use xds::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use xds::envoy::extensions::rbac::principals::mtls_authenticated::v3::Config as MtlsAuthenticated;
use xds::envoy::r#type::matcher::v3::filter_state_matcher::Matcher as StateMatcher;
use xds::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use xds::envoy::r#type::matcher::v3::{FilterStateMatcher, PathMatcher};
use xds::envoy::r#type::v3::Int32Range;

use super::address::{cidr_range, port_number};
use super::errors::{At, Result, each, optional, refuse, required};
use super::expression::expression;
use super::extension::{unpack, unsupported};
use super::matcher::{header_matcher, string_matcher};
use super::metadata::metadata_matcher;
use super::tls::san;
use super::value::{enumeration, name, non_empty, optional_duration};
use crate::config::Name;
use crate::config::matcher::StringMatcher;
use crate::config::matcher::uri_template::UriTemplate;
use crate::config::rbac::{self, Condition, Part, StatScope};

/// The longest form of paths that Envoy takes, in bytes.
const LONGEST_TEMPLATE: usize = 256;
/// One more than the last port that may begin or end a range.
const PORTS: i32 = 65_536;

/// The HTTP filter of the connection manager with this `stat_prefix`.
pub(super) fn filter(proto: &HttpRbac, stat_prefix: &Name) -> Result<rbac::RbacFilter> {
    let prefixes = [&*proto.rules_stat_prefix, &*proto.shadow_rules_stat_prefix];
    Ok(scoped(http_rbac(proto)?, stat_prefix, true, prefixes))
}

fn http_rbac(proto: &HttpRbac) -> Result<rbac::Rbac> {
    let HttpRbac {
        rules: enforced,
        rules_stat_prefix,
        shadow_rules,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = proto;
    Ok(rbac::Rbac {
        rules: optional("rules", enforced, |it| rules(it, rules_stat_prefix, "enforced"))?,
        shadow_rules: optional("shadow_rules", shadow_rules, |it| {
            rules(it, shadow_rules_stat_prefix, "shadow")
        })?,
        counts_policies: *track_per_rule_stats,
    })
}

/// What routes say to the HTTP filter: nothing at all means that there are no rules.
pub(super) fn route(proto: &RbacPerRoute) -> Result<rbac::Rbac> {
    let RbacPerRoute { rbac } = proto;
    Ok(optional("rbac", rbac, http_rbac)?.unwrap_or_default())
}

/// The network filter.
pub(super) fn network_filter(proto: &NetworkRbac) -> Result<rbac::NetworkRbac> {
    let NetworkRbac {
        rules: enforced,
        shadow_rules,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = proto;
    if enumeration::<EnforcementType>("enforcement_type", *enforcement_type)?
        == EnforcementType::Continuous
    {
        let reason = "nothing changes a connection's metadata while it lasts; leave it out";
        return refuse("enforcement_type", reason);
    }
    let rbac = rbac::Rbac {
        rules: optional("rules", enforced, |it| connection_rules(it, "", "enforced"))?,
        shadow_rules: optional("shadow_rules", shadow_rules, |it| {
            connection_rules(it, shadow_rules_stat_prefix, "shadow")
        })?,
        counts_policies: false,
    };
    let owner = without_dot(non_empty("stat_prefix", stat_prefix)?);
    Ok(rbac::NetworkRbac {
        filter: scoped(rbac, &owner, false, ["", shadow_rules_stat_prefix]),
        delay: optional_duration("delay_deny", delay_deny.as_ref())?,
    })
}

/// What `owner` counts under, where `rules_stat_prefix` and `shadow_rules_stat_prefix` are these `prefixes`.
fn scoped(rbac: rbac::Rbac, owner: &Name, is_http: bool, prefixes: [&str; 2]) -> rbac::RbacFilter {
    let scope = |prefix, part| {
        let (owner, prefix) = (Arc::clone(owner), without_dot(prefix));
        StatScope { owner, is_http, prefix, part }
    };
    let [rules, shadow] = prefixes;
    let (rules_scope, shadow_scope) = (scope(rules, Part::Rules), scope(shadow, Part::Shadow));
    rbac::RbacFilter { rbac, rules_scope, shadow_scope }
}

/// A part of a statistic's name, which a dot follows in any case.
fn without_dot(prefix: &str) -> Name {
    prefix.strip_suffix('.').unwrap_or(prefix).into()
}

/// Rules for connections, which have no headers.
fn connection_rules(proto: &Rbac, prefix: &str, kind: &str) -> Result<rbac::Rules> {
    let rules = rules(proto, prefix, kind)?;
    for policy in &rules.policies {
        if policy.expression.is_some() {
            let path = format!("policies[{:?}].condition", policy.name);
            return refuse(&path, "is asked of requests only here");
        }
        for (field, conditions) in
            [("permissions", &policy.permissions), ("principals", &policy.principals)]
        {
            let needs_headers = |it: &Condition| it.has(|it| matches!(it, Condition::Header(_)));
            if let Some(index) = conditions.iter().position(needs_headers) {
                let path = format!("policies[{:?}].{field}[{index}]", policy.name);
                return refuse(&path, "a connection has no headers");
            }
        }
    }
    Ok(rules)
}

/// Rules whose verdicts are noted under `prefix` and `kind`.
fn rules(proto: &Rbac, prefix: &str, kind: &str) -> Result<rbac::Rules> {
    let Rbac { action, policies } = proto;
    let action = match enumeration("action", *action)? {
        Action::Allow => rbac::Action::Allow,
        Action::Deny => rbac::Action::Deny,
        Action::Log => rbac::Action::Log,
    };
    Ok(rbac::Rules::new(action, sorted(policies)?, prefix, kind))
}

fn sorted(protos: &BTreeMap<String, Policy>) -> Result<Vec<rbac::Policy>> {
    let mut protos: Vec<_> = protos.iter().collect();
    protos.sort_by_key(|(name, _)| *name);
    let policy = |(name, proto): (&String, &Policy)| {
        let Policy { permissions, principals, condition } = proto;
        let at = format!("policies[{name:?}]");
        Ok(rbac::Policy {
            name: name.as_str().into(),
            permissions: conditions("permissions", permissions, permission).at(&at)?,
            principals: conditions("principals", principals, principal).at(&at)?,
            expression: optional("condition", condition, expression).at(&at)?,
        })
    };
    protos.into_iter().map(policy).collect()
}

/// A list of conditions, which must not be empty.
fn conditions<P>(
    field: &str,
    protos: &[P],
    condition: fn(&P) -> Result<Condition>,
) -> Result<Vec<Condition>> {
    if protos.is_empty() {
        return refuse(field, "must not be empty");
    }
    each(field, protos, condition)
}

fn permission(proto: &Permission) -> Result<Condition> {
    let Permission { rule } = proto;
    Ok(match required("", rule)? {
        Rule::AndRules(permission::Set { rules }) => {
            Condition::all(conditions("rules", rules, permission).at("and_rules")?)
        }
        Rule::OrRules(permission::Set { rules }) => {
            Condition::one_of(conditions("rules", rules, permission).at("or_rules")?)
        }
        Rule::NotRule(proto) => Condition::Not(Box::new(permission(proto).at("not_rule")?)),
        Rule::Any(any) => always(*any)?,
        Rule::Header(proto) => Condition::Header(header_matcher(proto).at("header")?),
        Rule::UrlPath(proto) => Condition::Path(path(proto).at("url_path")?),
        Rule::UriTemplate(proto) => Condition::Template(template(proto).at("uri_template")?),
        Rule::DestinationIp(proto) => {
            Condition::Destination(cidr_range(proto).at("destination_ip")?)
        }
        Rule::DestinationPort(port) => Condition::Port(port_number("destination_port", *port)?),
        Rule::DestinationPortRange(range) => {
            Condition::Ports(ports(*range).at("destination_port_range")?)
        }
        Rule::Metadata(proto) => Condition::Metadata(metadata_matcher(proto).at("metadata")?),
        Rule::SourcedMetadata(proto) => sourced_metadata(proto).at("sourced_metadata")?,
        Rule::RequestedServerName(proto) => {
            Condition::ServerName(string_matcher(proto).at("requested_server_name")?)
        }
    })
}

fn principal(proto: &Principal) -> Result<Condition> {
    let Principal { identifier } = proto;
    Ok(match required("", identifier)? {
        Identifier::AndIds(principal::Set { ids }) => {
            Condition::all(conditions("ids", ids, principal).at("and_ids")?)
        }
        Identifier::OrIds(principal::Set { ids }) => {
            Condition::one_of(conditions("ids", ids, principal).at("or_ids")?)
        }
        Identifier::NotId(proto) => Condition::Not(Box::new(principal(proto).at("not_id")?)),
        Identifier::Any(any) => always(*any)?,
        Identifier::Authenticated(Authenticated { principal_name }) => {
            let name = optional("principal_name", principal_name, string_matcher);
            Condition::Authenticated(name.at("authenticated")?)
        }
        Identifier::SourceIp(proto) => Condition::Source(cidr_range(proto).at("source_ip")?),
        Identifier::DirectRemoteIp(proto) => {
            Condition::DirectRemote(cidr_range(proto).at("direct_remote_ip")?)
        }
        Identifier::RemoteIp(proto) => Condition::Remote(cidr_range(proto).at("remote_ip")?),
        Identifier::Header(proto) => Condition::Header(header_matcher(proto).at("header")?),
        Identifier::UrlPath(proto) => Condition::Path(path(proto).at("url_path")?),
        Identifier::Metadata(proto) => Condition::Metadata(metadata_matcher(proto).at("metadata")?),
        Identifier::SourcedMetadata(proto) => sourced_metadata(proto).at("sourced_metadata")?,
        Identifier::FilterState(proto) => filter_state(proto).at("filter_state")?,
        Identifier::Custom(proto) => verified(proto).at("custom")?,
    })
}

fn verified(proto: &TypedExtensionConfig) -> Result<Condition> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = required("typed_config", typed_config)?;
    match unpack(any).at("typed_config")? {
        Some(MtlsAuthenticated { san_matcher, any_validated_client_certificate: anyone }) => {
            if san_matcher.is_none() && !anyone {
                let reason = "required: san_matcher or any_validated_client_certificate";
                return refuse("typed_config", reason);
            }
            optional("san_matcher", &san_matcher, san).map(Condition::Verified)
        }
        None => unsupported(any),
    }
    .at("typed_config")
}

fn always(any: bool) -> Result<Condition> {
    if any { Ok(Condition::Any) } else { refuse("any", "must be true") }
}

fn path(proto: &PathMatcher) -> Result<StringMatcher> {
    let PathMatcher { rule } = proto;
    let PathRule::Path(proto) = required("path", rule)?;
    string_matcher(proto).at("path")
}

fn template(proto: &TypedExtensionConfig) -> Result<UriTemplate> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = required("typed_config", typed_config)?;
    match unpack(any).at("typed_config")? {
        Some(UriTemplateMatchConfig { path_template }) => match path_template.len() {
            0..=LONGEST_TEMPLATE => UriTemplate::new(&path_template).at("path_template"),
            _ => refuse("path_template", format!("is longer than {LONGEST_TEMPLATE} bytes")),
        },
        None => unsupported(any),
    }
    .at("typed_config")
}

fn ports(proto: Int32Range) -> Result<Range<u32>> {
    let Int32Range { start, end } = proto;
    let port = |field, port: i32| {
        let valid = u32::try_from(port).ok().filter(|_| port <= PORTS);
        valid.ok_or_else(|| format!("must be 0 to {PORTS}")).at(field)
    };
    let range = port("start", start)?..port("end", end)?;
    if range.is_empty() { refuse("end", "must be greater than start") } else { Ok(range) }
}

fn sourced_metadata(proto: &SourcedMetadata) -> Result<Condition> {
    let SourcedMetadata { metadata_matcher: matcher, metadata_source } = proto;
    let source = enumeration("metadata_source", *metadata_source)?;
    let matcher = required("metadata_matcher", matcher)?;
    let matcher = metadata_matcher(matcher).at("metadata_matcher")?;
    Ok(match source {
        MetadataSource::Dynamic => Condition::Metadata(matcher),
        MetadataSource::Route => Condition::RouteMetadata(matcher),
    })
}

fn filter_state(proto: &FilterStateMatcher) -> Result<Condition> {
    let FilterStateMatcher { key, matcher } = proto;
    let StateMatcher::StringMatch(proto) = required("string_match", matcher)?;
    Ok(Condition::FilterState(name("key", key)?, string_matcher(proto).at("string_match")?))
}
