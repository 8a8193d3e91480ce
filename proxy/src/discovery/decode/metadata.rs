//! Metadata, and conditions on it.

use std::sync::Arc;

use xds::envoy::config::core::v3::Metadata;
use xds::envoy::r#type::matcher::v3::double_matcher::MatchPattern as DoublePattern;
use xds::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use xds::envoy::r#type::matcher::v3::metadata_matcher::PathSegment;
use xds::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use xds::envoy::r#type::matcher::v3::value_matcher::{MatchPattern, NullMatch};
use xds::envoy::r#type::matcher::v3::{
    DoubleMatcher, ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher,
};
use xds::envoy::r#type::v3::DoubleRange;

use super::errors::{At, Result, each, refuse, required};
use super::matcher::string_matcher;
use super::value::non_empty;
use crate::config::metadata;
pub(super) use crate::net::structure::json;

/// Metadata as a whole; none if there is nothing in it.
pub(super) fn metadata(proto: &Metadata) -> Option<Arc<metadata::Metadata>> {
    let Metadata { filter_metadata } = proto;
    let mut metadata = metadata::Metadata::default();
    for (namespace, values) in filter_metadata {
        metadata.set(namespace, json(values));
    }
    (!filter_metadata.is_empty()).then(|| Arc::new(metadata))
}

/// As [`metadata()`], for what is seldom read.
pub(super) fn packed(proto: &Option<Metadata>) -> Option<metadata::Packed> {
    proto.as_ref().and_then(metadata).map(|metadata| metadata::Packed::new(&metadata))
}

/// A metadata matcher.
pub(super) fn metadata_matcher(proto: &MetadataMatcher) -> Result<metadata::MetadataMatcher> {
    let MetadataMatcher { filter, path, value, invert } = proto;
    if path.is_empty() {
        return refuse("path", "needs at least one key");
    }
    Ok(metadata::MetadataMatcher {
        namespace: non_empty("filter", filter)?.into(),
        path: each("path", path, segment)?,
        value: value_matcher(required("value", value)?).at("value")?,
        invert: *invert,
    })
}

fn segment(proto: &PathSegment) -> Result<Box<str>> {
    let PathSegment { segment } = proto;
    let Segment::Key(key) = required("key", segment)?;
    Ok(non_empty("key", key)?.into())
}

fn value_matcher(proto: &ValueMatcher) -> Result<metadata::ValueMatcher> {
    let ValueMatcher { match_pattern } = proto;
    Ok(match match_pattern {
        Some(MatchPattern::NullMatch(NullMatch {})) => metadata::ValueMatcher::Null,
        Some(MatchPattern::DoubleMatch(DoubleMatcher { match_pattern })) => match match_pattern {
            Some(DoublePattern::Range(DoubleRange { start, end })) => {
                metadata::ValueMatcher::Range { start: *start, end: *end }
            }
            Some(DoublePattern::Exact(number)) => metadata::ValueMatcher::Number(*number),
            None => return refuse("double_match", "required: range or exact"),
        },
        Some(MatchPattern::StringMatch(proto)) => {
            metadata::ValueMatcher::String(string_matcher(proto).at("string_match")?)
        }
        Some(MatchPattern::BoolMatch(truth)) => metadata::ValueMatcher::Bool(*truth),
        Some(MatchPattern::PresentMatch(present)) => metadata::ValueMatcher::Present(*present),
        Some(MatchPattern::ListMatch(list)) => {
            let ListMatcher { match_pattern } = &**list;
            let ListPattern::OneOf(element) = required("list_match.one_of", match_pattern)?;
            let element = value_matcher(element).at("list_match.one_of")?;
            metadata::ValueMatcher::OneOf(Box::new(element))
        }
        Some(MatchPattern::OrMatch(OrMatcher { value_matchers })) => {
            if value_matchers.len() < 2 {
                return refuse("or_match.value_matchers", "needs at least two choices");
            }
            metadata::ValueMatcher::Or(
                each("value_matchers", value_matchers, value_matcher).at("or_match")?,
            )
        }
        None => return refuse("", "required: string_match, present_match, or another pattern"),
    })
}
