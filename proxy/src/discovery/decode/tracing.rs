//! Tracing: what connection managers, routes and the bootstrap say of it.

mod provider;

use std::sync::Arc;

use http::HeaderValue;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::route::v3::{Decorator, Tracing as RouteTracing};
use xds::envoy::config::trace::v3::Tracing as BootstrapTracing;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use xds::envoy::r#type::metadata::v3::MetadataKind;
use xds::envoy::r#type::metadata::v3::metadata_kind::{Cluster, Host, Kind, Request, Route};
use xds::envoy::r#type::tracing::v3::CustomTag;
use xds::envoy::r#type::tracing::v3::custom_tag::{Environment, Header, Literal, Metadata, Type};
use xds::envoy::r#type::v3::{FractionalPercent, Percent};

use self::provider::provider;
pub(super) use self::provider::{Attributes, detect, merge};
use super::errors::{At, Result, each, optional, refuse, required};
use super::matcher::header_ref;
use super::rate_limit::metadata_key;
use super::value::{fraction, non_empty, percent};
use crate::config::format::Format;
use crate::config::matcher::Fraction;
use crate::config::metadata::MetadataOf;
use crate::config::tracing::{self, Provider, Sampling, Spans, TagValue};

/// Envoy's default.
const PATH_TAG_LENGTH: u32 = 256;

/// What a connection manager says of traces; `start_child_span` is its router's.
pub(super) fn tracing(proto: &Tracing, start_child_span: bool) -> Result<tracing::Tracing> {
    let Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider: collector,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = proto;
    Ok(tracing::Tracing {
        sampling: Sampling {
            client: share("client_sampling", client_sampling.as_ref(), 1.0)?,
            random: share("random_sampling", random_sampling.as_ref(), 100.0)?,
            overall: share("overall_sampling", overall_sampling.as_ref(), 100.0)?,
        },
        verbose: *verbose,
        max_path_tag_length: max_path_tag_length.unwrap_or(PATH_TAG_LENGTH) as usize,
        spans: spans(custom_tags, operation, upstream_operation)?,
        provider: optional("provider", collector, provider)?.map(Arc::new),
        spawn_upstream_span: spawn_upstream_span.unwrap_or(start_child_span),
        no_context_propagation: *no_context_propagation,
    })
}

/// A percentage as Envoy rounds it: to so many parts of a percent.
fn share(field: &str, proto: Option<&Percent>, parts: f64) -> Result<Fraction> {
    let numerator = percent(field, proto, 100.0)? * parts;
    // Whole percents are cut off, parts of them rounded.
    let numerator = if parts > 1.0 { numerator.round() } else { numerator };
    #[expect(clippy::cast_sign_loss, reason = "a percentage is 0 to 100")]
    #[expect(clippy::cast_possible_truncation, reason = "a percentage is 0 to 100")]
    Ok(Fraction { numerator: numerator as u32, denominator: (100.0 * parts) as u32 })
}

/// What a route says of traces.
pub(super) fn route_tracing(proto: &RouteTracing) -> Result<tracing::RouteTracing> {
    let RouteTracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        custom_tags,
        operation,
        upstream_operation,
    } = proto;
    let share = |field, proto: &Option<FractionalPercent>| -> Result<Fraction> {
        Ok(optional(field, proto, fraction)?.unwrap_or(Sampling::ALL.random))
    };
    Ok(tracing::RouteTracing {
        sampling: Sampling {
            client: share("client_sampling", client_sampling)?,
            random: share("random_sampling", random_sampling)?,
            overall: share("overall_sampling", overall_sampling)?,
        },
        spans: spans(custom_tags, operation, upstream_operation)?,
    })
}

/// How a route calls its spans.
pub(super) fn decorator(proto: &Decorator) -> Result<tracing::Decorator> {
    let Decorator { operation, propagate } = proto;
    let operation = HeaderValue::from_bytes(non_empty("operation", operation)?.as_bytes())
        .map_err(|_| String::from("cannot stand in a header"))
        .at("operation")?;
    Ok(tracing::Decorator { operation, propagate: propagate.unwrap_or(true) })
}

/// The collector of connection managers that name none.
pub(super) fn default_provider(proto: &BootstrapTracing) -> Result<Option<Provider>> {
    let BootstrapTracing { http } = proto;
    optional("http", http, provider)
}

fn spans(tags: &[CustomTag], operation: &str, upstream_operation: &str) -> Result<Spans> {
    Ok(Spans {
        custom_tags: each("custom_tags", tags, custom_tag)?,
        operation: name("operation", operation)?,
        upstream_operation: name("upstream_operation", upstream_operation)?,
    })
}

fn name(field: &str, text: &str) -> Result<Option<Format>> {
    if text.is_empty() { Ok(None) } else { Ok(Some(Format::parse(text).at(field)?)) }
}

/// A tag.
pub(super) fn custom_tag(proto: &CustomTag) -> Result<tracing::CustomTag> {
    let CustomTag { tag, r#type } = proto;
    let name = non_empty("tag", tag)?.into();
    let value = match r#type {
        Some(Type::Literal(Literal { value })) => {
            TagValue::Text(non_empty("literal.value", value)?.into())
        }
        Some(Type::Environment(Environment { name, default_value })) => {
            let name = non_empty("environment.name", name)?;
            let value = std::env::var(name).unwrap_or_else(|_| default_value.clone());
            TagValue::Text(value.into())
        }
        Some(Type::RequestHeader(Header { name, default_value })) => TagValue::Header {
            name: header_ref(name).at("request_header.name")?,
            default: default_value.as_str().into(),
        },
        Some(Type::Metadata(proto)) => metadata(proto).at("metadata")?,
        Some(Type::Value(format)) => {
            TagValue::Format(Format::parse(non_empty("value", format)?).at("value")?)
        }
        None => {
            return refuse("", "required: literal, environment, request_header, metadata or value");
        }
    };
    Ok(tracing::CustomTag { name, value })
}

fn metadata(proto: &Metadata) -> Result<TagValue> {
    let Metadata { kind, metadata_key: key, default_value } = proto;
    let MetadataKind { kind } = required("kind", kind)?;
    let of = match required("kind", kind)? {
        Kind::Request(Request {}) => MetadataOf::Dynamic,
        Kind::Route(Route {}) => MetadataOf::Route,
        Kind::Cluster(Cluster {}) => MetadataOf::Cluster,
        Kind::Host(Host {}) => MetadataOf::UpstreamHost,
    };
    let key = metadata_key(required("metadata_key", key)?).at("metadata_key")?;
    Ok(TagValue::Metadata { of, key, default: default_value.as_str().into() })
}

/// What an extension is packed in.
fn packed(proto: &TypedExtensionConfig) -> Result<&prost_types::Any> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    required("typed_config", typed_config)
}
