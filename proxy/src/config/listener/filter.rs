//! Listener filters as configured: what looks at a connection before its filter chain is chosen.

use std::ops::Range;

use crate::config::Name;
use crate::config::tlv::PassedTlvs;
use crate::net::proxy_protocol::Version;

/// Envoy `ListenerFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    /// `filter_disabled`: connections it leaves alone.
    pub disabled: Option<Predicate>,
}

/// What a listener filter does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// `original_dst`: finds the address that a redirected connection was made to.
    OriginalDst,
    /// `tls_inspector`: reads the ClientHello.
    TlsInspector,
    /// `http_inspector`: tells HTTP from anything else.
    HttpInspector,
    /// `proxy_protocol`: takes the addresses from a PROXY header.
    ProxyProtocol(ProxyProtocol),
    /// `original_src`: connections made for this one come from its client's address.
    OriginalSrc(OriginalSrc),
}

impl ListenerFilter {
    /// Whether it leaves connections alone that were made to this port.
    pub fn is_disabled_for(&self, port: u16) -> bool {
        self.disabled.as_ref().is_some_and(|disabled| disabled.matches(port))
    }
}

impl From<ListenerFilterKind> for ListenerFilter {
    fn from(kind: ListenerFilterKind) -> Self {
        Self { kind, disabled: None }
    }
}

/// Envoy `extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// `allow_requests_without_proxy_protocol`: a connection may begin with anything else.
    pub optional: bool,
    /// `disallowed_versions`
    pub disallowed: Vec<Version>,
    /// `pass_through_tlvs`: which TLVs are kept for the headers of connections made for this one.
    pub passed_tlvs: PassedTlvs,
    /// `stat_prefix`; empty for none.
    pub stat_prefix: Name,
}

/// Envoy `extensions.filters.listener.original_src.v3.OriginalSrc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginalSrc {
    /// `mark`: of the packets to the endpoint (`SO_MARK`); 0 for none.
    pub mark: u32,
}

/// Envoy `ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// `any_match`
    Any,
    /// `destination_port_range`
    DestinationPort(Range<i32>),
    /// `not_match`
    Not(Box<Predicate>),
    /// `and_match`
    And(Vec<Predicate>),
    /// `or_match`
    Or(Vec<Predicate>),
}

impl Predicate {
    /// Whether it holds for a connection made to this port.
    pub fn matches(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::DestinationPort(range) => range.contains(&port.into()),
            Self::Not(inner) => !inner.matches(port),
            Self::And(all) => all.iter().all(|inner| inner.matches(port)),
            Self::Or(any) => any.iter().any(|inner| inner.matches(port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_is_made_of_port_ranges() {
        let ports = Predicate::DestinationPort(80..90);
        assert!(ports.matches(80) && ports.matches(89) && !ports.matches(90));
        let others = Predicate::Not(ports.clone().into());
        assert!(!others.matches(80) && others.matches(90));
        let both = Predicate::And(vec![ports.clone(), Predicate::DestinationPort(85..100)]);
        assert!(both.matches(85) && !both.matches(84));
        let either = Predicate::Or(vec![ports, Predicate::DestinationPort(443..444)]);
        assert!(either.matches(443) && !either.matches(444));
        assert!(Predicate::Any.matches(1));
    }
}
