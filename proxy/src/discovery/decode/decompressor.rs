//! The `decompressor` filter and its libraries.

use http::HeaderName;
use prost_types::Any;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::extensions::compression::brotli::decompressor::v3::Brotli;
use xds::envoy::extensions::compression::gzip::decompressor::v3::Gzip;
use xds::envoy::extensions::filters::http::decompressor::v3::Decompressor;
use xds::envoy::extensions::filters::http::decompressor::v3::decompressor::{
    CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig,
};

use super::errors::{At, Result, optional, required};
use super::extension::{carried, unpack, unsupported};
use super::value::{bounded, feature, header_name, non_empty};
use crate::config::Name;
use crate::config::compression::{self, CompressionScope, Decompressible, Decompression};

/// The filter of a connection manager with this `stat_prefix`.
pub(super) fn filter(
    proto: &Decompressor,
    stat_prefix: &Name,
) -> Result<compression::Decompressor> {
    let Decompressor { decompressor_library, request_direction_config, response_direction_config } =
        proto;
    let field = "decompressor_library";
    let TypedExtensionConfig { name, typed_config } = required(field, decompressor_library)?;
    non_empty("name", name).at(field)?;
    let library = optional("typed_config", typed_config, |any| kind(&*carried(any)?));
    let library = *required("typed_config", &library.at(field)?).at(field)?;
    let trailer = |what: &str| -> Result<HeaderName> {
        header_name(&format!("x-envoy-decompressor-{name}-{what}-bytes")).at("name").at(field)
    };
    let request = optional("request_direction_config", request_direction_config, request)?;
    let (request, advertises) = request.unwrap_or((Some(EVERYTHING), true));
    let response = optional("response_direction_config", response_direction_config, response)?;
    let response = response.unwrap_or(Some(EVERYTHING));
    let kind = match library {
        Decompression::Gzip { .. } => "gzip",
        Decompression::Brotli => "brotli",
    };
    Ok(compression::Decompressor {
        library,
        scope: CompressionScope {
            manager: stat_prefix.clone(),
            library: format!("{name}.{kind}").into(),
            response: "response",
        },
        request,
        advertises: advertises && response.is_some(),
        response,
        trailers: [trailer("compressed")?, trailer("uncompressed")?],
    })
}

/// What is said by saying nothing.
const EVERYTHING: Decompressible = Decompressible { ignores_no_transform: false };

fn request(proto: &RequestDirectionConfig) -> Result<(Option<Decompressible>, bool)> {
    let RequestDirectionConfig { common_config, advertise_accept_encoding } = proto;
    let which = optional("common_config", common_config, common)?.unwrap_or(Some(EVERYTHING));
    Ok((which, advertise_accept_encoding.unwrap_or(true)))
}

fn response(proto: &ResponseDirectionConfig) -> Result<Option<Decompressible>> {
    let ResponseDirectionConfig { common_config } = proto;
    Ok(optional("common_config", common_config, common)?.unwrap_or(Some(EVERYTHING)))
}

fn common(proto: &CommonDirectionConfig) -> Result<Option<Decompressible>> {
    let CommonDirectionConfig { enabled, ignore_no_transform_header } = proto;
    let enabled = optional("enabled", enabled, feature)?.unwrap_or(true);
    let ignores_no_transform = *ignore_no_transform_header;
    Ok(enabled.then_some(Decompressible { ignores_no_transform }))
}

fn kind(any: &Any) -> Result<Decompression> {
    if let Some(proto) = unpack(any)? {
        return gzip(&proto);
    }
    match unpack(any)? {
        Some(Brotli { disable_ring_buffer_reallocation: _, chunk_size: _ }) => {
            Ok(Decompression::Brotli)
        }
        None => unsupported(any),
    }
}

fn gzip(proto: &Gzip) -> Result<Decompression> {
    let Gzip { window_bits, chunk_size: _, max_inflate_ratio } = proto;
    Ok(Decompression::Gzip {
        window_bits: bounded("window_bits", *window_bits, 15, (9, 15))? as u8,
        max_inflate_ratio: bounded("max_inflate_ratio", *max_inflate_ratio, 100, (1, 1032))?,
    })
}
