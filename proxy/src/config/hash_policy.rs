//! What of a request decides where it goes, the same way each time (Envoy `RouteAction.HashPolicy`).

use super::matcher::HeaderRef;
use super::route::RegexRewrite;

/// Envoy `RouteAction.HashPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Whether no later policy counts once there is a hash.
    pub terminal: bool,
}

/// Envoy `HashPolicy.policy_specifier`.
#[derive(Debug, Clone, PartialEq)]
pub enum HashSource {
    /// `header`
    Header {
        /// Its name.
        name: HeaderRef,
        /// `regex_rewrite`: how each value changes before it is hashed.
        rewrite: Option<RegexRewrite>,
    },
    /// `cookie`
    Cookie(HashCookie),
    /// `connection_properties.source_ip`: the client's address, without port.
    SourceIp,
    /// `query_parameter`: the first value, as it stands on the wire.
    QueryParameter(Box<str>),
    /// `filter_state`: nothing sets any yet, so there is never a value.
    FilterState,
}

/// Envoy `HashPolicy.Cookie`: hashed if the request has it, given to the client if not and there is a `ttl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name.
    pub name: Box<str>,
    /// Its life in seconds, 0 for as long as the client runs; none means that no cookie is made.
    pub ttl: Option<u64>,
    /// Its path; empty means none.
    pub path: Box<str>,
    /// Names and values of further attributes; one without value stands alone.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}
