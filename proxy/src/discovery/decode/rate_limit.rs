//! Rate limits of routes and virtual hosts, and of filters that have their own.

use xds::envoy::config::route::v3::RateLimit;
use xds::envoy::config::route::v3::rate_limit::action::meta_data::Source;
use xds::envoy::config::route::v3::rate_limit::action::{
    DestinationCluster, DynamicMetaData, GenericKey, HeaderValueMatch, MaskedRemoteAddress,
    MetaData, QueryParameterValueMatch, QueryParameters, RemoteAddress, RequestHeaders,
    SourceCluster,
};
use xds::envoy::config::route::v3::rate_limit::r#override::{DynamicMetadata, OverrideSpecifier};
use xds::envoy::config::route::v3::rate_limit::{Action, HitsAddend, Override, action};
use xds::envoy::r#type::metadata::v3::MetadataKey;
use xds::envoy::r#type::metadata::v3::metadata_key::PathSegment;
use xds::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;

use super::errors::{At, Result, each, optional, refuse, required};
use super::matcher::{header_matcher, header_ref, query_parameter};
use super::value::{bounded, enumeration, non_empty};
use crate::config::format::Format;
use crate::config::rate_limit::{self, MetadataSource};

/// Most hits one request may be.
const MOST_HITS: u64 = 1_000_000_000;
/// The last stage.
const LAST_STAGE: u32 = 10;

/// Limits, in their order.
pub(super) fn rate_limits(protos: &[RateLimit]) -> Result<Vec<rate_limit::RateLimit>> {
    each("rate_limits", protos, limit)
}

/// The limits of a filter of its own, to which stages and keys mean nothing.
pub(super) fn own_rate_limits(protos: &[RateLimit]) -> Result<Vec<rate_limit::RateLimit>> {
    each("rate_limits", protos, |proto| {
        if proto.stage.is_some() || !proto.disable_key.is_empty() {
            return refuse("", "a filter's own limits have no stage and no disable_key");
        }
        if proto.limit.is_some() {
            return refuse("limit", "a filter's own limits have none");
        }
        limit(proto)
    })
}

/// The stage in `field`.
pub(super) fn stage(field: &str, proto: Option<u32>) -> Result<u32> {
    bounded(field, proto, 0, (0, LAST_STAGE))
}

fn limit(proto: &RateLimit) -> Result<rate_limit::RateLimit> {
    let RateLimit { stage: at, disable_key, actions, limit, hits_addend, apply_on_stream_done } =
        proto;
    if actions.is_empty() {
        return refuse("actions", "at least one is required");
    }
    Ok(rate_limit::RateLimit {
        stage: stage("stage", *at)?,
        disable_key: disable_key.as_str().into(),
        actions: each("actions", actions, action)?,
        limit: optional("limit", limit, limit_override)?,
        hits_addend: optional("hits_addend", hits_addend, hits)?.flatten(),
        apply_on_stream_done: *apply_on_stream_done,
    })
}

fn limit_override(proto: &Override) -> Result<rate_limit::MetadataKey> {
    let Override { override_specifier } = proto;
    let OverrideSpecifier::DynamicMetadata(DynamicMetadata { metadata_key: key }) =
        required("dynamic_metadata", override_specifier)?;
    let key = required("dynamic_metadata.metadata_key", key)?;
    metadata_key(key).at("dynamic_metadata.metadata_key")
}

fn hits(proto: &HitsAddend) -> Result<Option<rate_limit::HitsAddend>> {
    let HitsAddend { number, format } = proto;
    match (number, format.as_str()) {
        (None, "") => Ok(None),
        (Some(number), "") if *number > MOST_HITS => {
            refuse("number", format!("must be at most {MOST_HITS}"))
        }
        (Some(number), "") => Ok(Some(rate_limit::HitsAddend::Number(*number))),
        (None, text) if text.len() > 1 && text.starts_with('%') && text.ends_with('%') => {
            Ok(Some(rate_limit::HitsAddend::Format(Format::parse(text).at("format")?)))
        }
        (None, _) => refuse("format", "must be one command operator, such as %BYTES_RECEIVED%"),
        (Some(_), _) => refuse("", "only one of number and format may be set"),
    }
}

/// A place within metadata.
/// A place within metadata.
pub(super) fn metadata_key(proto: &MetadataKey) -> Result<rate_limit::MetadataKey> {
    let MetadataKey { key, path } = proto;
    if path.is_empty() {
        return refuse("path", "needs at least one key");
    }
    Ok(rate_limit::MetadataKey {
        namespace: non_empty("key", key)?.into(),
        path: each("path", path, |PathSegment { segment }| {
            let Segment::Key(key) = required("key", segment)?;
            Ok(non_empty("key", key)?.into())
        })?,
    })
}

fn action(proto: &Action) -> Result<rate_limit::Action> {
    use action::ActionSpecifier as Kind;
    let Action { action_specifier } = proto;
    Ok(match required("", action_specifier)? {
        Kind::SourceCluster(SourceCluster {}) => rate_limit::Action::SourceCluster,
        Kind::DestinationCluster(DestinationCluster {}) => rate_limit::Action::DestinationCluster,
        Kind::RequestHeaders(proto) => request_header(proto).at("request_headers")?,
        Kind::QueryParameters(proto) => query(proto).at("query_parameters")?,
        Kind::RemoteAddress(RemoteAddress {}) => rate_limit::Action::RemoteAddress,
        Kind::MaskedRemoteAddress(proto) => masked(proto).at("masked_remote_address")?,
        Kind::GenericKey(GenericKey { descriptor_value, descriptor_key }) => {
            let value = non_empty("generic_key.descriptor_value", descriptor_value)?.into();
            rate_limit::Action::GenericKey { key: or(descriptor_key, "generic_key"), value }
        }
        Kind::HeaderValueMatch(proto) => header_match(proto).at("header_value_match")?,
        Kind::QueryParameterValueMatch(proto) => {
            query_match(proto).at("query_parameter_value_match")?
        }
        Kind::DynamicMetadata(proto) => dynamic_metadata(proto).at("dynamic_metadata")?,
        Kind::Metadata(proto) => metadata(proto).at("metadata")?,
    })
}

fn or(key: &str, default: &str) -> Box<str> {
    if key.is_empty() { default.into() } else { key.into() }
}

fn request_header(proto: &RequestHeaders) -> Result<rate_limit::Action> {
    let RequestHeaders { header_name, descriptor_key, skip_if_absent } = proto;
    Ok(rate_limit::Action::RequestHeader {
        header: header_ref(header_name).at("header_name")?,
        key: non_empty("descriptor_key", descriptor_key)?.into(),
        skip_if_absent: *skip_if_absent,
    })
}

fn query(proto: &QueryParameters) -> Result<rate_limit::Action> {
    let QueryParameters { query_parameter_name, descriptor_key, skip_if_absent } = proto;
    Ok(rate_limit::Action::QueryParameter {
        name: non_empty("query_parameter_name", query_parameter_name)?.into(),
        key: non_empty("descriptor_key", descriptor_key)?.into(),
        skip_if_absent: *skip_if_absent,
    })
}

fn masked(proto: &MaskedRemoteAddress) -> Result<rate_limit::Action> {
    let MaskedRemoteAddress { v4_prefix_mask_len, v6_prefix_mask_len } = proto;
    Ok(rate_limit::Action::MaskedRemoteAddress {
        v4: bounded("v4_prefix_mask_len", *v4_prefix_mask_len, 32, (0, 32))? as u8,
        v6: bounded("v6_prefix_mask_len", *v6_prefix_mask_len, 128, (0, 128))? as u8,
    })
}

fn header_match(proto: &HeaderValueMatch) -> Result<rate_limit::Action> {
    let HeaderValueMatch { descriptor_key, descriptor_value, expect_match, headers } = proto;
    if headers.is_empty() {
        return refuse("headers", "at least one is required");
    }
    Ok(rate_limit::Action::HeaderValueMatch {
        key: or(descriptor_key, "header_match"),
        value: non_empty("descriptor_value", descriptor_value)?.into(),
        expect_match: expect_match.unwrap_or(true),
        headers: each("headers", headers, header_matcher)?,
    })
}

fn query_match(proto: &QueryParameterValueMatch) -> Result<rate_limit::Action> {
    let QueryParameterValueMatch {
        descriptor_key,
        descriptor_value,
        expect_match,
        query_parameters: parameters,
    } = proto;
    if parameters.is_empty() {
        return refuse("query_parameters", "at least one is required");
    }
    Ok(rate_limit::Action::QueryParameterValueMatch {
        key: or(descriptor_key, "query_match"),
        value: non_empty("descriptor_value", descriptor_value)?.into(),
        expect_match: expect_match.unwrap_or(true),
        parameters: each("query_parameters", parameters, query_parameter)?,
    })
}

fn dynamic_metadata(proto: &DynamicMetaData) -> Result<rate_limit::Action> {
    let DynamicMetaData { descriptor_key, metadata_key: key, default_value } = proto;
    let key = metadata_key(required("metadata_key", key)?).at("metadata_key")?;
    Ok(rate_limit::Action::Metadata {
        key: non_empty("descriptor_key", descriptor_key)?.into(),
        from: key,
        source: MetadataSource::Dynamic,
        default: default_value.as_str().into(),
        skip_if_absent: false,
    })
}

fn metadata(proto: &MetaData) -> Result<rate_limit::Action> {
    let MetaData { descriptor_key, metadata_key: key, default_value, source, skip_if_absent } =
        proto;
    let key = metadata_key(required("metadata_key", key)?).at("metadata_key")?;
    Ok(rate_limit::Action::Metadata {
        key: non_empty("descriptor_key", descriptor_key)?.into(),
        from: key,
        source: match enumeration("source", *source)? {
            Source::Dynamic => MetadataSource::Dynamic,
            Source::RouteEntry => MetadataSource::Route,
        },
        default: default_value.as_str().into(),
        skip_if_absent: *skip_if_absent,
    })
}
