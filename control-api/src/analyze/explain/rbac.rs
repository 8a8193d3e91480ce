//! What the rules of Envoy's RBAC say of a request: yes, no, or that it depends on what nobody told (a token, an
//! address).

use std::collections::BTreeMap;

use xds::envoy::config::rbac::v3::permission::Rule;
use xds::envoy::config::rbac::v3::principal::Identifier;
use xds::envoy::config::rbac::v3::rbac::Action;
use xds::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac};
use xds::envoy::r#type::matcher::v3::path_matcher;

use super::asked::Asked;
use super::matching;

/// A request as the workload's proxy sees it.
pub(super) struct Seen<'a> {
    /// None for a connection without HTTP.
    pub(super) asked: Option<&'a Asked>,
    /// The workload's port.
    pub(super) port: u32,
    /// The name that TLS asked for.
    pub(super) server_name: Option<&'a str>,
    /// Who asks, `spiffe://…`; none without mTLS.
    pub(super) principal: Option<&'a str>,
}

/// Yes, no, or unknown.
type Answer = Option<bool>;

/// What rules come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it is allowed.
    pub(super) allowed: Answer,
    /// The rule that decides, or those that it depends on.
    pub(super) by: Vec<String>,
}

/// What rules say of a request.
pub(super) fn verdict(rules: &Rbac, seen: &Seen<'_>) -> Verdict {
    let matched = matched(&rules.policies, seen);
    let allows = rules.action() == Action::Allow;
    let those = |answer: Answer| -> Vec<String> {
        let found = matched.iter().filter(|(_, it)| *it == answer);
        found.map(|(name, _)| (*name).to_owned()).collect()
    };
    let (yes, unknown) = (those(Some(true)), those(None));
    if !yes.is_empty() {
        return Verdict { allowed: Some(allows || rules.action() == Action::Log), by: yes };
    }
    if !unknown.is_empty() {
        return Verdict { allowed: None, by: unknown };
    }
    Verdict { allowed: Some(!allows), by: Vec::new() }
}

/// What each policy says.
pub(super) fn matched<'p>(
    policies: &'p BTreeMap<String, Policy>,
    seen: &Seen<'_>,
) -> Vec<(&'p str, Answer)> {
    let of = |(name, policy): (&'p String, &Policy)| {
        let permitted = any(policy.permissions.iter().map(|it| permission(it, seen)));
        let meant = any(policy.principals.iter().map(|it| principal(it, seen)));
        (name.as_str(), all([permitted, meant].into_iter()))
    };
    policies.iter().map(of).collect()
}

fn any(answers: impl Iterator<Item = Answer>) -> Answer {
    let mut known = true;
    for answer in answers {
        match answer {
            Some(true) => return Some(true),
            Some(false) => {}
            None => known = false,
        }
    }
    known.then_some(false)
}

fn all(answers: impl Iterator<Item = Answer>) -> Answer {
    any(answers.map(|it| it.map(|it| !it))).map(|it| !it)
}

fn permission(permission: &Permission, seen: &Seen<'_>) -> Answer {
    let of = |it: &Permission| self::permission(it, seen);
    match permission.rule.as_ref()? {
        Rule::AndRules(set) => all(set.rules.iter().map(of)),
        Rule::OrRules(set) => any(set.rules.iter().map(of)),
        Rule::NotRule(rule) => of(rule).map(|it| !it),
        Rule::Any(it) => Some(*it),
        Rule::Header(it) => Some(matching::header(it, seen.asked?)),
        Rule::UrlPath(it) => path(it.rule.as_ref(), seen),
        Rule::DestinationPort(port) => Some(*port == seen.port),
        Rule::DestinationPortRange(range) => {
            let port = i32::try_from(seen.port).ok()?;
            Some((range.start..range.end).contains(&port))
        }
        Rule::RequestedServerName(it) => {
            Some(matching::text(it, seen.server_name.unwrap_or_default()))
        }
        Rule::Metadata(_) => of_token(seen),
        Rule::DestinationIp(_) | Rule::UriTemplate(_) | Rule::SourcedMetadata(_) => None,
    }
}

fn principal(principal: &Principal, seen: &Seen<'_>) -> Answer {
    let of = |it: &Principal| self::principal(it, seen);
    match principal.identifier.as_ref()? {
        Identifier::AndIds(set) => all(set.ids.iter().map(of)),
        Identifier::OrIds(set) => any(set.ids.iter().map(of)),
        Identifier::NotId(id) => of(id).map(|it| !it),
        Identifier::Any(it) => Some(*it),
        Identifier::Authenticated(it) => Some(match (seen.principal, &it.principal_name) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(own), Some(name)) => matching::text(name, own),
        }),
        // The only state that policies look at is the peer's identity.
        Identifier::FilterState(it) => match it.matcher.as_ref()? {
            xds::envoy::r#type::matcher::v3::filter_state_matcher::Matcher::StringMatch(it) => {
                Some(seen.principal.is_some_and(|own| matching::text(it, own)))
            }
        },
        Identifier::Header(it) => Some(matching::header(it, seen.asked?)),
        Identifier::UrlPath(it) => path(it.rule.as_ref(), seen),
        Identifier::Metadata(_) => of_token(seen),
        Identifier::SourceIp(_)
        | Identifier::DirectRemoteIp(_)
        | Identifier::RemoteIp(_)
        | Identifier::SourcedMetadata(_)
        | Identifier::Custom(_) => None,
    }
}

/// What a token says: nothing, if there is none.
fn of_token(seen: &Seen<'_>) -> Answer {
    if matching::has_token(seen.asked?) { None } else { Some(false) }
}

fn path(rule: Option<&path_matcher::Rule>, seen: &Seen<'_>) -> Answer {
    let path_matcher::Rule::Path(matcher) = rule?;
    Some(matching::text(matcher, seen.asked?.path()))
}

/// The object and the rule of `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`.
pub(super) fn parts(name: &str) -> Option<(&str, &str, usize)> {
    let (_, rest) = name.split_once("ns[")?;
    let (namespace, rest) = rest.split_once("]-policy[")?;
    let (name, rest) = rest.split_once("]-rule[")?;
    Some((namespace, name, rest.split_once(']')?.0.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use xds::envoy::config::rbac::v3::{permission, principal};

    use super::*;

    #[test]
    fn what_is_not_known_counts_only_where_nothing_else_decides() {
        assert_eq!(any([None, Some(true)].into_iter()), Some(true));
        assert_eq!(any([None, Some(false)].into_iter()), None);
        assert_eq!(all([None, Some(false)].into_iter()), Some(false));
        assert_eq!(all([None, Some(true)].into_iter()), None);
        assert_eq!(all(std::iter::empty()), Some(true));
    }

    #[test]
    fn rules_allow_or_deny_who_they_are_for() {
        let policy = |rule: Rule| Policy {
            permissions: vec![Permission { rule: Some(rule) }],
            principals: vec![Principal { identifier: Some(principal::Identifier::Any(true)) }],
            ..Policy::default()
        };
        let rules = |action: Action, rule: Rule| Rbac {
            action: action.into(),
            policies: BTreeMap::from([("ns[a]-policy[b]-rule[2]".to_owned(), policy(rule))]),
        };
        let seen = Seen { asked: None, port: 80, server_name: None, principal: None };
        let of = |action, rule| verdict(&rules(action, rule), &seen).allowed;
        let port = permission::Rule::DestinationPort;
        assert_eq!(of(Action::Allow, port(80)), Some(true));
        assert_eq!(of(Action::Allow, port(81)), Some(false));
        assert_eq!(of(Action::Deny, port(80)), Some(false));
        assert_eq!(of(Action::Deny, port(81)), Some(true));
        assert_eq!(of(Action::Deny, Rule::Metadata(Default::default())), None);
        assert_eq!(parts("istio-ext-authz-x-ns[a]-policy[b]-rule[2]"), Some(("a", "b", 2)));
    }
}
