//! Listener filters, and which connections they leave alone.

use xds::envoy::config::listener::v3::listener_filter::ConfigType;
use xds::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use xds::envoy::config::listener::v3::{ListenerFilter, ListenerFilterChainMatchPredicate};
use xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use xds::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use xds::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use xds::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use xds::envoy::r#type::v3::Int32Range;

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::proxy_protocol;
use super::value::non_empty;
use crate::config::listener::filter::{self, ListenerFilterKind, Predicate};

/// A listener filter.
pub(super) fn listener_filter(proto: &ListenerFilter) -> Result<filter::ListenerFilter> {
    let ListenerFilter { name, config_type, filter_disabled } = proto;
    non_empty("name", name)?;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    Ok(filter::ListenerFilter {
        kind: kind(any).at("typed_config")?,
        disabled: optional("filter_disabled", filter_disabled, predicate)?,
    })
}

fn kind(any: &prost_types::Any) -> Result<ListenerFilterKind> {
    if let Some(TlsInspector { initial_read_buffer_size: _ }) = unpack(any)? {
        return Ok(ListenerFilterKind::TlsInspector);
    }
    if let Some(OriginalDst {}) = unpack(any)? {
        return Ok(ListenerFilterKind::OriginalDst);
    }
    if let Some(HttpInspector {}) = unpack(any)? {
        return Ok(ListenerFilterKind::HttpInspector);
    }
    if let Some(proto) = unpack::<ProxyProtocol>(any)? {
        return Ok(ListenerFilterKind::ProxyProtocol(proxy_protocol::read(&proto)?));
    }
    if let Some(OriginalSrc { bind_port: _, mark }) = unpack(any)? {
        return Ok(ListenerFilterKind::OriginalSrc(filter::OriginalSrc { mark }));
    }
    unsupported(any)
}

fn predicate(proto: &ListenerFilterChainMatchPredicate) -> Result<Predicate> {
    let ListenerFilterChainMatchPredicate { rule } = proto;
    match required("", rule)? {
        Rule::AnyMatch(true) => Ok(Predicate::Any),
        Rule::AnyMatch(false) => refuse("any_match", "must be true"),
        Rule::DestinationPortRange(Int32Range { start, end }) => {
            Ok(Predicate::DestinationPort(*start..*end))
        }
        Rule::NotMatch(inner) => Ok(Predicate::Not(Box::new(predicate(inner).at("not_match")?))),
        Rule::AndMatch(set) => match_set(set).at("and_match").map(Predicate::And),
        Rule::OrMatch(set) => match_set(set).at("or_match").map(Predicate::Or),
    }
}

fn match_set(MatchSet { rules }: &MatchSet) -> Result<Vec<Predicate>> {
    if rules.len() < 2 {
        return refuse("rules", "must be at least 2");
    }
    each("rules", rules, predicate)
}
