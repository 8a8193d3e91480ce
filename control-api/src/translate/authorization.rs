//! `AuthorizationPolicy`: Envoy's RBAC filters, and those that ask a service of the mesh's own choice.
//!
//! Every rule of a policy is one of Envoy's, named `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`. What cannot be told of a
//! connection without HTTP narrows a policy that allows, and widens one that denies.

mod attribute;
mod external;
mod matcher;
mod rule;
mod token;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use xds::envoy::config::listener::v3::Filter;
use xds::envoy::config::rbac::v3::rbac::Action as EnvoyAction;
use xds::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal};
use xds::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;

use super::proxy::Proxy;
use super::{attachment, values};
use crate::model::istio::authorization_policy::{Action, AuthorizationPolicy};
use crate::model::{Found, Mesh};

/// What a policy of action `CUSTOM` begins with, so that its service is asked when it fits.
const EXTERNAL: &str = "istio-ext-authz";
/// What is appended to a policy whose service is not known: it then denies.
const BAD_EXTERNAL: &str = "-deny-due-to-bad-CUSTOM-action";
/// Policies with this annotation are only counted.
const DRY_RUN: &str = "istio.io/dry-run";
const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const NETWORK_RBAC: &str = "envoy.filters.network.rbac";

/// The filters that decide on requests without a service: audit, deny, allow.
pub(super) fn http(mesh: &Mesh, proxy: &Proxy) -> Vec<HttpFilter> {
    let sets = sets(mesh, proxy, Layer::Http);
    let filter = |set: RuleSet| {
        let shadow_rules_stat_prefix = set.shadow_prefix();
        let rbac = HttpRbac {
            rules: set.enforced,
            shadow_rules: set.shadow,
            shadow_rules_stat_prefix,
            ..HttpRbac::default()
        };
        values::http_filter(HTTP_RBAC, &rbac)
    };
    sets.into_iter().map(filter).collect()
}

/// The same for connections without HTTP.
pub(super) fn network(mesh: &Mesh, proxy: &Proxy) -> Vec<Filter> {
    let sets = sets(mesh, proxy, Layer::Network);
    let filter = |set: RuleSet| {
        let shadow_rules_stat_prefix = set.shadow_prefix();
        network_rbac(NetworkRbac {
            rules: set.enforced,
            shadow_rules: set.shadow,
            shadow_rules_stat_prefix,
            ..NetworkRbac::default()
        })
    };
    sets.into_iter().map(filter).collect()
}

/// The filters that ask services about requests.
pub(super) fn custom_http(mesh: &Mesh, proxy: &Proxy) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    let sets = by_provider(mesh, proxy, Layer::Http);
    let several = sets.len() > 1;
    for (provider, set) in sets {
        let service = external::service(mesh, &provider).filter(|_| !several);
        let Some(service) = service else {
            let rbac = HttpRbac { rules: Some(bad(set.enforced)), ..HttpRbac::default() };
            filters.push(values::http_filter(HTTP_RBAC, &rbac));
            continue;
        };
        let rbac = HttpRbac {
            rules: set.shadow.filter(|it| !it.policies.is_empty()),
            shadow_rules: set.enforced,
            shadow_rules_stat_prefix: external::STAT_PREFIX.to_owned(),
            ..HttpRbac::default()
        };
        filters.push(values::http_filter(HTTP_RBAC, &rbac));
        filters.push(service.http_filter(&provider));
    }
    filters
}

/// The filters that ask services about connections. A service that speaks HTTP cannot be asked.
pub(super) fn custom_network(mesh: &Mesh, proxy: &Proxy) -> Vec<Filter> {
    let mut filters = Vec::new();
    let sets = by_provider(mesh, proxy, Layer::Network);
    let several = sets.len() > 1;
    for (provider, set) in sets {
        let service = external::service(mesh, &provider).filter(|_| !several);
        let Some(service) = service else {
            let rules = Some(bad(set.enforced));
            filters.push(network_rbac(NetworkRbac { rules, ..NetworkRbac::default() }));
            continue;
        };
        let Some(asking) = service.network_filter(&provider) else { continue };
        filters.push(network_rbac(NetworkRbac {
            rules: set.shadow.filter(|it| !it.policies.is_empty()),
            shadow_rules: set.enforced,
            shadow_rules_stat_prefix: external::STAT_PREFIX.to_owned(),
            ..NetworkRbac::default()
        }));
        filters.push(asking);
    }
    filters
}

fn network_rbac(mut rbac: NetworkRbac) -> Filter {
    "tcp.".clone_into(&mut rbac.stat_prefix);
    values::network_filter(NETWORK_RBAC, &rbac)
}

/// What is known of what is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Http,
    Network,
}

/// Policies of one action: those that decide, and those that are only counted.
struct RuleSet {
    enforced: Option<Rbac>,
    shadow: Option<Rbac>,
}

impl RuleSet {
    fn shadow_prefix(&self) -> String {
        let action = self.shadow.as_ref().map_or(EnvoyAction::Allow, Rbac::action);
        let prefix = match action {
            EnvoyAction::Allow => "istio_dry_run_allow_",
            EnvoyAction::Deny => "istio_dry_run_deny_",
            EnvoyAction::Log => "",
        };
        prefix.to_owned()
    }
}

type Policies<'m> = Vec<Found<'m, AuthorizationPolicy>>;

/// The policies for a proxy by what they do, in the order in which they are asked.
fn sets(mesh: &Mesh, proxy: &Proxy, layer: Layer) -> Vec<RuleSet> {
    let all: Policies<'_> = attachment::policies(mesh, proxy);
    let actions = [
        (Action::Audit, EnvoyAction::Log),
        (Action::Deny, EnvoyAction::Deny),
        (Action::Allow, EnvoyAction::Allow),
    ];
    let of = |(action, envoy): (Action, EnvoyAction)| {
        let policies: Policies<'_> =
            all.iter().filter(|it| it.spec.action == action).copied().collect();
        (!policies.is_empty()).then(|| rule_set(mesh, &policies, envoy, layer, ""))
    };
    actions.into_iter().filter_map(of).collect()
}

/// The policies of action `CUSTOM` by the service that they ask.
fn by_provider(mesh: &Mesh, proxy: &Proxy, layer: Layer) -> Vec<(String, RuleSet)> {
    let all: Policies<'_> = attachment::policies(mesh, proxy);
    let mut by_name: BTreeMap<String, Policies<'_>> = BTreeMap::new();
    for policy in all.iter().filter(|it| it.spec.action == Action::Custom) {
        let name = policy.spec.provider.as_ref().map(|it| it.name.clone()).unwrap_or_default();
        by_name.entry(name).or_default().push(*policy);
    }
    let set = |(name, policies): (String, Policies<'_>)| {
        let dash = if name.is_empty() { "" } else { "-" };
        let prefix = format!("{EXTERNAL}-{name}{dash}");
        let mut set = rule_set(mesh, &policies, EnvoyAction::Deny, layer, &prefix);
        // The filter that asks looks for the policies that fit among these, be there any or not.
        set.enforced.get_or_insert_with(|| rbac(EnvoyAction::Deny));
        (name, set)
    };
    by_name.into_iter().map(set).collect()
}

fn rule_set(
    mesh: &Mesh,
    policies: &[Found<'_, AuthorizationPolicy>],
    action: EnvoyAction,
    layer: Layer,
    prefix: &str,
) -> RuleSet {
    let mut set = RuleSet { enforced: None, shadow: None };
    for policy in policies {
        let annotation = policy.object.metadata.annotations.get(DRY_RUN);
        let into = match annotation.map(String::as_str) {
            Some("true" | "TRUE" | "True" | "t" | "T" | "1") => &mut set.shadow,
            _ => &mut set.enforced,
        };
        let into = into.get_or_insert_with(|| rbac(action));
        let name = |rule: usize| {
            format!("{prefix}ns[{}]-policy[{}]-rule[{rule}]", policy.namespace(), policy.name())
        };
        for (index, rule) in policy.spec.rules.iter().enumerate() {
            let context = rule::Context { mesh, namespace: policy.namespace(), action, layer };
            if let Some(translated) = context.policy(rule) {
                into.policies.insert(name(index), translated);
            }
        }
        if policy.spec.rules.is_empty() {
            into.policies.insert(name(0), never());
        }
    }
    set
}

fn rbac(action: EnvoyAction) -> Rbac {
    Rbac { action: action.into(), ..Rbac::default() }
}

/// A policy that fits nothing.
fn never() -> Policy {
    let any_permission = Permission { rule: Some(permission::Rule::Any(true)) };
    let any_principal = Principal { identifier: Some(principal::Identifier::Any(true)) };
    Policy {
        permissions: vec![Permission {
            rule: Some(permission::Rule::NotRule(Box::new(any_permission))),
        }],
        principals: vec![Principal {
            identifier: Some(principal::Identifier::NotId(Box::new(any_principal))),
        }],
        ..Policy::default()
    }
}

/// The same policies, but what fits is denied: nobody can be asked.
fn bad(rules: Option<Rbac>) -> Rbac {
    let policies = rules.unwrap_or_default().policies;
    let named = |(name, policy)| (format!("{name}{BAD_EXTERNAL}"), policy);
    Rbac { policies: policies.into_iter().map(named).collect(), ..rbac(EnvoyAction::Deny) }
}

/// What of the mesh's policies cannot be applied as it is written: the policy, and why.
pub(super) fn unapplied(mesh: &Mesh) -> Vec<(Found<'_, AuthorizationPolicy>, String)> {
    let mut found = Vec::new();
    for policy in mesh.all::<AuthorizationPolicy>() {
        let mut keys = BTreeSet::new();
        for condition in policy.spec.rules.iter().flat_map(|rule| &rule.when) {
            if !attribute::is_known(&condition.key) && keys.insert(&condition.key) {
                found.push((policy, format!("unknown attribute {}", condition.key)));
            }
        }
        if policy.spec.action != Action::Custom {
            continue;
        }
        let name = policy.spec.provider.as_ref().map(|it| it.name.as_str()).unwrap_or_default();
        if external::service(mesh, name).is_none() {
            let why = format!(
                "its provider {name:?} is no authorization service of the mesh: what fits is denied"
            );
            found.push((policy, why));
        }
    }
    found
}
