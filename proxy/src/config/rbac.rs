//! Who may do what, as configured (Envoy `config.rbac.v3`), and the two filters that ask.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Name;
use super::address::CidrRange;
use super::expression::Expression;
use super::matcher::uri_template::UriTemplate;
use super::matcher::{HeaderMatcher, StringMatcher};
use super::metadata::{MetadataMatcher, Values};
use super::tls::SanMatcher;

/// A filter with what it counts under, whatever routes say.
#[derive(Debug, Clone, PartialEq)]
pub struct RbacFilter {
    /// What it asks.
    pub rbac: Rbac,
    /// Where verdicts of `rules` are counted.
    pub rules_scope: StatScope,
    /// Where verdicts of `shadow_rules` are counted.
    pub shadow_scope: StatScope,
}

/// What policies are counted under: `http.MANAGER.rbac.[PREFIX.]` or `STAT_PREFIX.rbac.[PREFIX.]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatScope {
    /// `stat_prefix` of the connection manager, or of a network filter.
    pub owner: Name,
    /// Whether it is one of HTTP.
    pub is_http: bool,
    /// `rules_stat_prefix` or `shadow_rules_stat_prefix`, without a dot at its end; may be empty.
    pub prefix: Name,
    /// What of it.
    pub part: Part,
}

/// What is counted by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Verdicts of `rules`.
    Rules,
    /// Verdicts of `shadow_rules`.
    Shadow,
    /// One policy: `policy.NAME.`
    Policy(Name),
}

impl StatScope {
    /// The scope of one policy of these.
    pub fn of_policy(&self, name: &str) -> Self {
        Self { part: Part::Policy(name.into()), ..self.clone() }
    }
}

/// Envoy `filters.http.rbac.v3.RBAC`; of the network filter's it is the part that both have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rbac {
    /// `rules`: what counts; none lets everything pass.
    pub rules: Option<Rules>,
    /// `shadow_rules`: what is only counted and noted.
    pub shadow_rules: Option<Rules>,
    /// `track_per_rule_stats`: whether every policy is counted, too.
    pub counts_policies: bool,
}

/// Envoy `filters.network.rbac.v3.RBAC`.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkRbac {
    /// Its rules, and what they count under.
    pub filter: RbacFilter,
    /// `delay_deny`: how long a connection that is denied is kept before it is closed.
    pub delay: Option<Duration>,
}

/// Envoy `RBAC`: policies, and what it means if one matches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// What it means.
    pub action: Action,
    /// In the order of their names, in which they are asked; the first that matches decides.
    pub policies: Vec<Policy>,
    /// What their verdicts leave in metadata, and at last what it leaves if none matches; made with them.
    notes: Vec<Values>,
}

impl Rules {
    /// Rules whose verdicts are noted under `prefix` and `kind`, which is `enforced` or `shadow`.
    pub fn new(action: Action, policies: Vec<Policy>, prefix: &str, kind: &str) -> Self {
        let note = |policy: Option<&Policy>| {
            let result = if action.allows(policy.is_some()) { "allowed" } else { "denied" };
            let result = (format!("{prefix}{kind}_engine_result"), result.into());
            let id = |it: &Policy| {
                (format!("{prefix}{kind}_effective_policy_id"), Value::from(&*it.name))
            };
            let named = policy.filter(|it| !it.name.is_empty());
            Arc::new([result].into_iter().chain(named.map(id)).collect())
        };
        let notes = policies.iter().map(Some).chain([None]).map(note).collect();
        Self { action, policies, notes }
    }

    /// What it leaves that the policy of this number decided, or that none did.
    pub fn note(&self, policy: Option<usize>) -> Option<&Values> {
        self.notes.get(policy.unwrap_or(self.policies.len()))
    }
}

/// Envoy `RBAC.Action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// ALLOW: what no policy matches is denied.
    #[default]
    Allow,
    /// DENY: what no policy matches is allowed.
    Deny,
    /// LOG: all is allowed; whether a policy matches is for the access log.
    Log,
}

impl Action {
    /// Whether something is allowed that a policy matches, or none.
    pub fn allows(self, is_matched: bool) -> bool {
        match self {
            Self::Allow => is_matched,
            Self::Deny => !is_matched,
            Self::Log => true,
        }
    }
}

/// Envoy `Policy`: matches if one of its permissions and one of its principals do, and its condition holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: Name,
    /// `permissions`: what is to be done.
    pub permissions: Vec<Condition>,
    /// `principals`: by whom.
    pub principals: Vec<Condition>,
    /// `condition`: what else has to be true of a request.
    pub expression: Option<Expression>,
}

/// Envoy `Permission` and `Principal`, of which most kinds are common to both.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// `any`
    Any,
    /// `and_rules`, `and_ids`
    All(Vec<Condition>),
    /// `or_rules`, `or_ids`
    OneOf(Vec<Condition>),
    /// `not_rule`, `not_id`
    Not(Box<Condition>),
    /// `header`; of several of one name each is looked at by itself.
    Header(HeaderMatcher),
    /// `url_path`: the path without query.
    Path(StringMatcher),
    /// `uri_template`: the path without query has this form.
    Template(UriTemplate),
    /// `destination_ip`
    Destination(CidrRange),
    /// `destination_port`
    Port(u16),
    /// `destination_port_range`
    Ports(Range<u32>),
    /// `requested_server_name`; none asked for is an empty one.
    ServerName(StringMatcher),
    /// `metadata`, and `sourced_metadata` of a DYNAMIC source: of the request or connection.
    Metadata(MetadataMatcher),
    /// `sourced_metadata` of a ROUTE source; without a route nothing matches.
    RouteMetadata(MetadataMatcher),
    /// `authenticated`: over TLS, and one of the names in the client's certificate matches; a client without a
    /// certificate has an empty one.
    Authenticated(Option<StringMatcher>),
    /// `custom` of `mtls_authenticated`: over TLS, with a certificate that was verified, one of whose names matches.
    Verified(Option<SanMatcher>),
    /// `source_ip`: who made the connection, as a PROXY header or the socket says.
    Source(CidrRange),
    /// `direct_remote_ip`: the peer of the socket.
    DirectRemote(CidrRange),
    /// `remote_ip`: the client as forwarded headers say.
    Remote(CidrRange),
    /// `filter_state`: the object under this key, as text.
    FilterState(Name, StringMatcher),
}

impl Condition {
    /// All of these; a single one is that one.
    pub fn all(conditions: Vec<Self>) -> Self {
        <[_; 1]>::try_from(conditions).map_or_else(Self::All, |[only]| only)
    }

    /// One of these at least; a single one is that one.
    pub fn one_of(conditions: Vec<Self>) -> Self {
        <[_; 1]>::try_from(conditions).map_or_else(Self::OneOf, |[only]| only)
    }
}

impl Condition {
    /// Whether `is` holds for this condition or one that it is made of.
    pub fn has(&self, is: fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::All(conditions) | Self::OneOf(conditions) => {
                    conditions.iter().any(|condition| condition.has(is))
                }
                Self::Not(condition) => condition.has(is),
                _ => false,
            }
    }
}
