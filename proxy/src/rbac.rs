//! Who may do what: policies are asked about a request or a connection, of which everything is an argument.
//!
//! One engine for both filters (`http/filter/rbac.rs`, `listener/network_filters.rs`). What a verdict leaves in metadata
//! and details is the same for both, too.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde_json::{Map, Value};

use crate::config::address::CidrRange;
use crate::config::expression::Expression;
use crate::config::format;
use crate::config::matcher::{RequestHead, StringMatcher};
use crate::config::metadata::{Metadata, Values};
use crate::config::rbac::{Action, Condition, Policy, Rules};
use crate::net::listening::known;
use crate::tls::peer::PeerInfo;

/// The namespace of `access_log_hint` in metadata.
pub const SHARED_NAMESPACE: &str = "envoy.common";

/// What policies may look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The request; none if there is but a connection.
    pub request: Option<Request<'a>>,
    /// What TLS established with the client; none on plain text.
    pub tls: Option<&'a PeerInfo>,
    /// The server name asked for.
    pub server_name: Option<&'a str>,
    /// Where the client connected to.
    pub destination: SocketAddr,
    /// Who made the connection, as a PROXY header or the socket says.
    pub source: SocketAddr,
    /// The peer of the socket.
    pub direct_remote: SocketAddr,
    /// The client as forwarded headers or the connection say.
    pub remote: SocketAddr,
    /// What filters noted so far.
    pub metadata: Option<&'a Metadata>,
    /// The text of the object under a key of the filter state.
    pub filter_state: &'a dyn Fn(&str) -> Option<&'a str>,
    /// What expressions read of a request; none if there is but a connection.
    pub attributes: Option<&'a dyn format::Facts>,
}

/// A request as policies see it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its head.
    pub head: RequestHead<'a>,
    /// The path that its route is found by.
    pub path: &'a str,
    /// The metadata of its route, if it has a route.
    pub route_metadata: Option<Option<&'a Metadata>>,
}

/// What rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether it may pass.
    pub is_allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'a str>,
    /// What it leaves in metadata.
    pub note: Option<&'a Values>,
}

impl Rules {
    /// Asks the policies in the order of their names; the first that matches decides.
    pub fn judge(&self, facts: &Facts<'_>) -> Verdict<'_> {
        let number = self.policies.iter().position(|policy| policy.matches(facts));
        let policy = number.and_then(|number| self.policies.get(number));
        Verdict {
            is_allowed: self.action.allows(policy.is_some()),
            policy: policy.map(|policy| &*policy.name),
            note: self.note(number),
        }
    }
}

impl Policy {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let one = |conditions: &[Condition]| conditions.iter().any(|it| it.matches(facts));
        let holds = |it: &Expression| facts.attributes.is_some_and(|read| it.holds(read));
        one(&self.permissions)
            && one(&self.principals)
            && self.expression.as_ref().is_none_or(holds)
    }
}

impl Condition {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let request = facts.request.as_ref();
        match self {
            Self::Any => true,
            Self::All(conditions) => conditions.iter().all(|it| it.matches(facts)),
            Self::OneOf(conditions) => conditions.iter().any(|it| it.matches(facts)),
            Self::Not(condition) => !condition.matches(facts),
            Self::Header(matcher) => request.is_some_and(|it| matcher.matches(&it.head)),
            Self::Path(matcher) => request.is_some_and(|it| matcher.matches(it.path.as_bytes())),
            Self::Template(form) => request.is_some_and(|it| form.is_match(it.path)),
            Self::Destination(range) => is_in(range, facts.destination),
            Self::Port(port) => facts.destination.port() == *port,
            Self::Ports(ports) => ports.contains(&facts.destination.port().into()),
            Self::ServerName(matcher) => {
                matcher.matches(facts.server_name.unwrap_or_default().as_bytes())
            }
            Self::Metadata(matcher) => matcher.matches(facts.metadata),
            Self::RouteMetadata(matcher) => {
                let route = request.and_then(|it| it.route_metadata);
                route.is_some_and(|metadata| matcher.matches(metadata))
            }
            Self::Authenticated(name) => facts.tls.is_some_and(|tls| is_named(tls, name.as_ref())),
            Self::Verified(name) => facts.tls.filter(|tls| tls.validated()).is_some_and(|tls| {
                let is_named = |name| tls.certificate().is_some_and(|it| it.is_named(name));
                name.as_ref().is_none_or(is_named)
            }),
            Self::Source(range) => is_in(range, facts.source),
            Self::DirectRemote(range) => is_in(range, facts.direct_remote),
            Self::Remote(range) => is_in(range, facts.remote),
            Self::FilterState(key, matcher) => {
                let object = (facts.filter_state)(key);
                object.is_some_and(|text| matcher.matches(text.as_bytes()))
            }
        }
    }
}

/// A Unix socket is in no range, not even in that of everything.
fn is_in(range: &CidrRange, address: SocketAddr) -> bool {
    known(address.ip()).is_some_and(|ip| range.contains(ip))
}

/// Whether one of the names of the client's certificate matches: its URIs, its DNS names, its subject.
fn is_named(tls: &PeerInfo, matcher: Option<&StringMatcher>) -> bool {
    let Some(matcher) = matcher else { return true };
    let Some(certificate) = tls.certificate() else { return matcher.matches(b"") };
    let mut names = certificate.uri_sans().iter().chain(certificate.dns_sans());
    names.any(|name| matcher.matches(name.as_bytes()))
        || matcher.matches(certificate.subject().as_bytes())
}

impl Verdict<'_> {
    /// Why somebody was denied, as access logs have it. A space in a policy's name becomes an underscore.
    pub fn details(&self) -> String {
        let name = self.policy.filter(|name| !name.is_empty()).unwrap_or("none");
        let name = match name.contains(|c: char| c.is_ascii_whitespace()) {
            true => Cow::Owned(name.replace(|c: char| c.is_ascii_whitespace(), "_")),
            false => Cow::Borrowed(name),
        };
        format!("rbac_access_denied_matched_policy[{name}]")
    }

    /// What `rules` tell access logs: whether to log it, if their action is LOG.
    pub fn log_hint(&self, rules: &Rules) -> Option<Map<String, Value>> {
        let wanted = self.policy.is_some();
        (rules.action == Action::Log)
            .then(|| Map::from_iter([("access_log_hint".to_owned(), wanted.into())]))
    }
}

#[cfg(test)]
mod tests;
