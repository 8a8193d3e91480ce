//! Hash policies of routes.

use http::HeaderValue;
use xds::envoy::config::route::v3::route_action::HashPolicy;
use xds::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier,
    QueryParameter,
};

use super::errors::{At, Result, each, optional, refuse};
use super::matcher::header_ref;
use super::rewrite::regex_rewrite;
use super::value::{non_empty, optional_duration};
use crate::config::hash_policy::{self, HashCookie, HashSource};

/// The hash policies in `field`, without those that say nothing.
pub(super) fn hash_policies(
    field: &str,
    protos: &[HashPolicy],
) -> Result<Vec<hash_policy::HashPolicy>> {
    Ok(each(field, protos, hash_policy)?.into_iter().flatten().collect())
}

fn hash_policy(proto: &HashPolicy) -> Result<Option<hash_policy::HashPolicy>> {
    let HashPolicy { terminal, policy_specifier } = proto;
    let source = match policy_specifier {
        Some(PolicySpecifier::Header(Header { header_name, regex_rewrite: rewrite })) => {
            HashSource::Header {
                name: header_ref(header_name).at("header.header_name")?,
                rewrite: optional("header.regex_rewrite", rewrite, regex_rewrite)?,
            }
        }
        Some(PolicySpecifier::Cookie(proto)) => HashSource::Cookie(cookie(proto).at("cookie")?),
        Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip })) => {
            if !source_ip {
                return Ok(None);
            }
            HashSource::SourceIp
        }
        Some(PolicySpecifier::QueryParameter(QueryParameter { name })) => {
            HashSource::QueryParameter(non_empty("query_parameter.name", name)?.into())
        }
        Some(PolicySpecifier::FilterState(FilterState { key })) => {
            non_empty("filter_state.key", key)?;
            HashSource::FilterState
        }
        None => return refuse("", "required: header, cookie, connection_properties or another"),
    };
    Ok(Some(hash_policy::HashPolicy { source, terminal: *terminal }))
}

fn cookie(proto: &Cookie) -> Result<HashCookie> {
    let Cookie { name, ttl, path, attributes } = proto;
    non_empty("name", name)?;
    let cookie = HashCookie {
        name: sendable("name", name)?,
        ttl: optional_duration("ttl", ttl.as_ref())?.map(|ttl| ttl.as_secs()),
        path: sendable("path", path)?,
        attributes: each("attributes", attributes, |CookieAttribute { name, value }| {
            Ok((sendable("name", non_empty("name", name)?)?, sendable("value", value)?))
        })?,
    };
    Ok(cookie)
}

/// A part of a `set-cookie` header.
pub(super) fn sendable(field: &str, text: &str) -> Result<Box<str>> {
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.into()),
        Err(_) => refuse(field, "cannot stand in a header"),
    }
}
