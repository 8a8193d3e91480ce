//! The PROXY header: as it is read from clients, and as it is sent to endpoints.

use xds::envoy::config::core::v3::proxy_protocol_config::Version as ProtoVersion;
use xds::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use xds::envoy::config::core::v3::{ProxyProtocolConfig, ProxyProtocolPassThroughTlVs, TlvEntry};
use xds::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;

use super::errors::{At, Result, each, optional, refuse};
use super::value::enumeration;
use crate::config::connecting;
use crate::config::listener::filter;
use crate::config::tlv::PassedTlvs;
use crate::net::proxy_protocol::{Tlv, Version};

/// The listener filter that reads it.
pub(super) fn read(proto: &ProxyProtocol) -> Result<filter::ProxyProtocol> {
    let ProxyProtocol {
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
    } = proto;
    let disallowed = each("disallowed_versions", disallowed_versions, |it| version("", *it))?;
    if [Version::V1, Version::V2].iter().all(|version| disallowed.contains(version)) {
        return refuse("disallowed_versions", "no version of the PROXY protocol is left");
    }
    Ok(filter::ProxyProtocol {
        optional: *allow_requests_without_proxy_protocol,
        disallowed,
        passed_tlvs: optional("pass_through_tlvs", pass_through_tlvs, passed)?.unwrap_or_default(),
        stat_prefix: stat_prefix.as_str().into(),
    })
}

/// The header that tells an endpoint who the client is.
pub(super) fn sent(proto: &ProxyProtocolConfig) -> Result<connecting::ProxyProtocol> {
    let ProxyProtocolConfig { version: sent_version, pass_through_tlvs, added_tlvs } = proto;
    Ok(connecting::ProxyProtocol {
        version: version("version", *sent_version)?,
        added_tlvs: each("added_tlvs", added_tlvs, |proto| {
            let TlvEntry { r#type, value } = proto;
            let kind = kind("type", *r#type)?;
            if value.is_empty() {
                return refuse("value", "must not be empty");
            }
            Ok(Tlv { kind, value: value.as_slice().into() })
        })?,
        passed_tlvs: optional("pass_through_tlvs", pass_through_tlvs, passed)?.unwrap_or_default(),
    })
}

fn version(field: &str, number: i32) -> Result<Version> {
    Ok(match enumeration(field, number)? {
        ProtoVersion::V1 => Version::V1,
        ProtoVersion::V2 => Version::V2,
    })
}

fn passed(proto: &ProxyProtocolPassThroughTlVs) -> Result<PassedTlvs> {
    let ProxyProtocolPassThroughTlVs { match_type, tlv_type } = proto;
    Ok(match enumeration("match_type", *match_type)? {
        PassTlVsMatchType::IncludeAll => PassedTlvs::All,
        PassTlVsMatchType::Include => {
            PassedTlvs::Only(each("tlv_type", tlv_type, |it| kind("", *it))?)
        }
    })
}

fn kind(field: &str, number: u32) -> Result<u8> {
    u8::try_from(number).map_err(|_| String::from("must be 0 to 255")).at(field)
}
