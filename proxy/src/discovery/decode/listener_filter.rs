//! Listener filters, and which connections they leave alone.

use xds::envoy::config::core::v3::ProxyProtocolPassThroughTlVs;
use xds::envoy::config::core::v3::proxy_protocol_config::Version as ProtoVersion;
use xds::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use xds::envoy::config::listener::v3::listener_filter::ConfigType;
use xds::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use xds::envoy::config::listener::v3::{ListenerFilter, ListenerFilterChainMatchPredicate};
use xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use xds::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use xds::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use xds::envoy::r#type::v3::Int32Range;

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::value::enumeration;
use crate::config::listener::filter::{self, KeptTlvs, ListenerFilterKind, Predicate};
use crate::net::proxy_protocol::Version;

/// A listener filter.
pub(super) fn listener_filter(proto: &ListenerFilter) -> Result<filter::ListenerFilter> {
    let ListenerFilter { name: _, config_type, filter_disabled } = proto;
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
        return Ok(ListenerFilterKind::ProxyProtocol(proxy_protocol(&proto)?));
    }
    unsupported(any)
}

fn proxy_protocol(proto: &ProxyProtocol) -> Result<filter::ProxyProtocol> {
    let ProxyProtocol {
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
    } = proto;
    Ok(filter::ProxyProtocol {
        optional: *allow_requests_without_proxy_protocol,
        disallowed: each("disallowed_versions", disallowed_versions, |version| {
            Ok(match enumeration("", *version)? {
                ProtoVersion::V1 => Version::V1,
                ProtoVersion::V2 => Version::V2,
            })
        })?,
        kept_tlvs: optional("pass_through_tlvs", pass_through_tlvs, kept_tlvs)?.unwrap_or_default(),
        stat_prefix: stat_prefix.as_str().into(),
    })
}

fn kept_tlvs(proto: &ProxyProtocolPassThroughTlVs) -> Result<KeptTlvs> {
    let ProxyProtocolPassThroughTlVs { match_type, tlv_type } = proto;
    Ok(match enumeration("match_type", *match_type)? {
        PassTlVsMatchType::IncludeAll => KeptTlvs::All,
        PassTlVsMatchType::Include => KeptTlvs::Only(each("tlv_type", tlv_type, |kind| {
            Ok(u8::try_from(*kind).map_err(|_| String::from("must be 0 to 255"))?)
        })?),
    })
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
