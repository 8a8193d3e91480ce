//! The `compressor` filter, its libraries, and what routes say to it.

use http::StatusCode;
use prost_types::Any;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::extensions::compression::brotli::compressor::v3::Brotli;
use xds::envoy::extensions::compression::brotli::compressor::v3::brotli::EncoderMode;
use xds::envoy::extensions::compression::gzip::compressor::v3::Gzip;
use xds::envoy::extensions::compression::gzip::compressor::v3::gzip::CompressionLevel;
use xds::envoy::extensions::filters::http::compressor::v3::compressor::{
    CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig,
};
use xds::envoy::extensions::filters::http::compressor::v3::compressor_per_route::Override;
use xds::envoy::extensions::filters::http::compressor::v3::{
    Compressor, CompressorOverrides, CompressorPerRoute, ResponseDirectionOverrides,
};

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{carried, unpack, unsupported};
use super::matcher::string_matcher;
use super::value::{bounded, enumeration, feature, non_empty};
use crate::config::Name;
use crate::config::compression::{
    self, BrotliMode, COMPRESSIBLE, CompressedResponses, Compressible, Compression,
    CompressionScope, ContentTypes, EtagRule, RouteCompression,
};

/// The filter of a connection manager with this `stat_prefix`.
pub(super) fn filter(proto: &Compressor, stat_prefix: &Name) -> Result<compression::Compressor> {
    let Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = proto;
    let field = "compressor_library";
    let (name, library) = library(required(field, compressor_library)?).at(field)?;
    let kind = match library {
        Compression::Gzip { .. } => "gzip",
        Compression::Brotli { .. } => "brotli",
    };
    let field = "request_direction_config";
    let request = optional(field, request_direction_config, request)?.flatten();
    let own = ResponseDirectionConfig {
        common_config: Some(CommonDirectionConfig {
            enabled: runtime_enabled.clone(),
            min_content_length: *content_length,
            content_type: content_type.clone(),
            content_type_matcher: Vec::new(),
        }),
        disable_on_etag_header: *disable_on_etag_header,
        remove_accept_encoding_header: *remove_accept_encoding_header,
        ..ResponseDirectionConfig::default()
    };
    let silent = ResponseDirectionConfig {
        common_config: Some(CommonDirectionConfig::default()),
        ..ResponseDirectionConfig::default()
    };
    let field = "response_direction_config";
    if response_direction_config.is_some() && own != silent {
        tracing::warn!(
            "a compressor with {field} does not heed its deprecated fields of the same meaning"
        );
    }
    let response = optional(field, response_direction_config, response)?;
    let scope = CompressionScope {
        manager: stat_prefix.clone(),
        library: format!("{name}.{kind}").into(),
        response: if response.is_some() { "response" } else { "" },
    };
    let response = match response {
        Some(response) => response,
        None => self::response(&own)?,
    };
    Ok(compression::Compressor { library, scope, request, response, choose_first: *choose_first })
}

fn request(proto: &RequestDirectionConfig) -> Result<Option<Compressible>> {
    let RequestDirectionConfig { common_config } = proto;
    let (enabled, which) =
        common(&common_config.clone().unwrap_or_default()).at("common_config")?;
    Ok(enabled.then_some(which))
}

fn response(proto: &ResponseDirectionConfig) -> Result<CompressedResponses> {
    let ResponseDirectionConfig {
        common_config,
        disable_on_etag_header,
        weaken_etag_on_compress,
        remove_accept_encoding_header,
        uncompressible_response_codes,
        status_header_enabled,
    } = proto;
    let (enabled, which) =
        common(&common_config.clone().unwrap_or_default()).at("common_config")?;
    Ok(CompressedResponses {
        enabled,
        which,
        etag: match (weaken_etag_on_compress, disable_on_etag_header) {
            (true, _) => EtagRule::Weaken,
            (false, true) => EtagRule::Respect,
            (false, false) => EtagRule::Remove,
        },
        removes_accept_encoding: *remove_accept_encoding_header,
        uncompressible: each(
            "uncompressible_response_codes",
            uncompressible_response_codes,
            uncompressible,
        )?,
        tells_status: *status_header_enabled,
    })
}

fn uncompressible(code: &u32) -> Result<StatusCode> {
    let code = u16::try_from(bounded("", Some(*code), 200, (200, 599))?);
    match code.ok().and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(code) => Ok(code),
        None => refuse("", "must be a status of HTTP"),
    }
}

/// Whether anything is compressed, and what.
fn common(proto: &CommonDirectionConfig) -> Result<(bool, Compressible)> {
    let CommonDirectionConfig { enabled, min_content_length, content_type, content_type_matcher } =
        proto;
    let matchers = each("content_type_matcher", content_type_matcher, string_matcher)?;
    if !matchers.is_empty() && !content_type.is_empty() {
        tracing::warn!("a compressor with content_type_matcher does not heed its content_type");
    }
    let content_types = match content_type.as_slice() {
        _ if !matchers.is_empty() => ContentTypes::Matching(matchers),
        [] => ContentTypes::named(COMPRESSIBLE.map(Into::into).into()),
        named => ContentTypes::named(named.iter().map(|it| it.as_str().into()).collect()),
    };
    let enabled = optional("enabled", enabled, feature)?.unwrap_or(true);
    // Envoy's default, also of what is zero.
    let min_content_length = min_content_length.filter(|it| *it > 0).unwrap_or(30).into();
    Ok((enabled, Compressible { min_content_length, content_types }))
}

/// What a route says.
pub(super) fn route(proto: &CompressorPerRoute) -> Result<RouteCompression> {
    let CompressorPerRoute { r#override } = proto;
    match required("disabled or overrides", r#override)? {
        Override::Disabled(true) => Ok(RouteCompression {
            enabled: Some(false),
            removes_accept_encoding: None,
            library: None,
        }),
        Override::Disabled(false) => refuse("disabled", "must be true"),
        Override::Overrides(proto) => overrides(proto).at("overrides"),
    }
}

fn overrides(proto: &CompressorOverrides) -> Result<RouteCompression> {
    let CompressorOverrides { response_direction_config, compressor_library } = proto;
    let response = response_direction_config.as_ref();
    let library = optional("compressor_library", compressor_library, |it| {
        library(it).map(|(_, library)| library)
    })?;
    Ok(RouteCompression {
        enabled: response.map(|_| true),
        removes_accept_encoding: response.and_then(
            |ResponseDirectionOverrides { remove_accept_encoding_header }| {
                *remove_accept_encoding_header
            },
        ),
        library,
    })
}

/// A library and the name of its extension.
fn library(proto: &TypedExtensionConfig) -> Result<(&str, Compression)> {
    let TypedExtensionConfig { name, typed_config } = proto;
    let name = non_empty("name", name)?;
    let any = carried(required("typed_config", typed_config)?).at("typed_config")?;
    Ok((name, kind(&any).at("typed_config")?))
}

fn kind(any: &Any) -> Result<Compression> {
    if let Some(proto) = unpack(any)? {
        return gzip(&proto);
    }
    match unpack(any)? {
        Some(proto) => brotli(&proto),
        None => unsupported(any),
    }
}

fn gzip(proto: &Gzip) -> Result<Compression> {
    let Gzip {
        memory_level: _,
        compression_level,
        compression_strategy: _,
        window_bits,
        chunk_size: _,
    } = proto;
    let level = enumeration::<CompressionLevel>("compression_level", *compression_level)? as i32;
    Ok(Compression::Gzip {
        level: u8::try_from(level).ok().filter(|level| *level > 0),
        window_bits: bounded("window_bits", *window_bits, 12, (9, 15))? as u8,
    })
}

fn brotli(proto: &Brotli) -> Result<Compression> {
    let Brotli {
        quality,
        encoder_mode,
        window_bits,
        input_block_bits: _,
        chunk_size: _,
        disable_literal_context_modeling: _,
    } = proto;
    Ok(Compression::Brotli {
        quality: bounded("quality", *quality, 3, (0, 11))? as u8,
        window_bits: bounded("window_bits", *window_bits, 18, (10, 24))? as u8,
        mode: match enumeration("encoder_mode", *encoder_mode)? {
            EncoderMode::Default | EncoderMode::Generic => BrotliMode::Generic,
            EncoderMode::Text => BrotliMode::Text,
            EncoderMode::Font => BrotliMode::Font,
        },
    })
}
