//! How bodies are compressed and decompressed (Envoy `filters.http.compressor.v3` and `decompressor.v3`).

use http::{HeaderName, StatusCode};

use super::Name;
use super::matcher::StringMatcher;

/// What is compressed if nothing is said of content types.
pub const COMPRESSIBLE: [&str; 20] = [
    "application/ecmascript",
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/x-json",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
    "text/css",
    "text/ecmascript",
    "text/html",
    "text/javascript",
    "text/js",
    "text/jscript",
    "text/plain",
    "text/x-javascript",
    "text/x-js",
    "text/xml",
];

/// Envoy `Compressor`.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressor {
    /// `compressor_library`
    pub library: Compression,
    /// What it is counted under.
    pub scope: CompressionScope,
    /// `request_direction_config`; none if requests are not compressed.
    pub request: Option<Compressible>,
    /// `response_direction_config`
    pub response: CompressedResponses,
    /// `choose_first`: whether it is taken before others that the client likes as much.
    pub choose_first: bool,
}

/// Envoy `CommonDirectionConfig`: which bodies are compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressible {
    /// `min_content_length`: in bytes, of those that say their length.
    pub min_content_length: u64,
    /// `content_type` or `content_type_matcher`
    pub content_types: ContentTypes,
}

/// Content types, without their parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum ContentTypes {
    /// `content_type`, whatever the case: see [`ContentTypes::named`].
    Named(Vec<Box<str>>),
    /// `content_type_matcher`
    Matching(Vec<StringMatcher>),
}

impl ContentTypes {
    /// Those with these names, which are kept by their length: so they are found.
    pub fn named(mut names: Vec<Box<str>>) -> Self {
        names.sort_by_key(|name| name.len());
        Self::Named(names)
    }

    /// Whether `kind`, without its parameters, is one of them.
    pub fn contain(&self, kind: &[u8]) -> bool {
        match self {
            Self::Named(names) => {
                let shorter = names.partition_point(|name| name.len() < kind.len());
                let mut others = names.iter().skip(shorter).map(|name| name.as_bytes());
                let mut as_long = others.by_ref().take_while(|name| name.len() == kind.len());
                as_long.any(|name| name == kind || name.eq_ignore_ascii_case(kind))
            }
            Self::Matching(matchers) => matchers.iter().any(|matcher| matcher.matches(kind)),
        }
    }
}

/// Envoy `ResponseDirectionConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedResponses {
    /// `common_config.enabled`
    pub enabled: bool,
    /// `common_config`
    pub which: Compressible,
    /// `disable_on_etag_header` and `weaken_etag_on_compress`
    pub etag: EtagRule,
    /// `remove_accept_encoding_header`: whether the upstream is not to compress.
    pub removes_accept_encoding: bool,
    /// `uncompressible_response_codes`
    pub uncompressible: Vec<StatusCode>,
    /// `status_header_enabled`: whether responses say why they are not compressed.
    pub tells_status: bool,
}

/// What becomes of a response with an `etag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtagRule {
    /// It is compressed; a strong one is taken away.
    Remove,
    /// It is compressed; a strong one becomes a weak one.
    Weaken,
    /// It is not compressed.
    Respect,
}

/// A library that compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Envoy `extensions.compression.gzip.compressor.v3.Gzip`
    Gzip {
        /// `compression_level`, 1 to 9; none means the library's own.
        level: Option<u8>,
        /// `window_bits`, 9 to 15.
        window_bits: u8,
    },
    /// Envoy `extensions.compression.brotli.compressor.v3.Brotli`
    Brotli {
        /// `quality`, 0 to 11.
        quality: u8,
        /// `window_bits`, 10 to 24.
        window_bits: u8,
        /// `encoder_mode`
        mode: BrotliMode,
    },
}

/// Envoy `Brotli.EncoderMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrotliMode {
    /// `GENERIC`, the default.
    Generic,
    /// `TEXT`: UTF-8.
    Text,
    /// `FONT`: WOFF 2.0.
    Font,
}

impl Compression {
    /// What `content-encoding` says of bodies that it has compressed.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Gzip { .. } => GZIP,
            Self::Brotli { .. } => BROTLI,
        }
    }
}

const GZIP: &str = "gzip";
const BROTLI: &str = "br";

/// Envoy `Decompressor`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decompressor {
    /// `decompressor_library`
    pub library: Decompression,
    /// What it is counted under.
    pub scope: CompressionScope,
    /// `request_direction_config`; none if requests are not decompressed.
    pub request: Option<Decompressible>,
    /// `response_direction_config`; none if responses are not decompressed.
    pub response: Option<Decompressible>,
    /// `advertise_accept_encoding`, if responses are decompressed: whether the upstream learns that it may compress.
    pub advertises: bool,
    /// Trailers that tell the length of a body before and after: `x-envoy-decompressor-NAME-compressed-bytes` and
    /// `-uncompressed-bytes`.
    pub trailers: [HeaderName; 2],
}

/// Envoy `CommonDirectionConfig`: which bodies are decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decompressible {
    /// `ignore_no_transform_header`: whether those that are not to be transformed are, too.
    pub ignores_no_transform: bool,
}

/// A library that decompresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decompression {
    /// Envoy `extensions.compression.gzip.decompressor.v3.Gzip`
    Gzip {
        /// `window_bits`, 9 to 15.
        window_bits: u8,
        /// `max_inflate_ratio`: how many times larger than what has come a body may become.
        max_inflate_ratio: u32,
    },
    /// Envoy `extensions.compression.brotli.decompressor.v3.Brotli`
    Brotli,
}

impl Decompression {
    /// What `content-encoding` says of bodies that it decompresses.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Gzip { .. } => GZIP,
            Self::Brotli => BROTLI,
        }
    }

    /// How many times larger than what has come a body may become; Envoy's own number for brotli.
    pub fn max_inflate_ratio(self) -> u32 {
        match self {
            Self::Gzip { max_inflate_ratio, .. } => max_inflate_ratio,
            Self::Brotli => 100,
        }
    }
}

/// `http.MANAGER.compressor.LIBRARY.`, or the same of `decompressor`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CompressionScope {
    /// `stat_prefix` of the connection manager.
    pub manager: Name,
    /// The name of the library's extension, and what it is: `text.gzip`.
    pub library: Name,
    /// What is counted of responses stands under: `response`, or nothing if there is no `response_direction_config`.
    pub response: &'static str,
}

/// Envoy `CompressorPerRoute`: what it does not say is said by the filter.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteCompression {
    /// Whether responses are compressed.
    pub enabled: Option<bool>,
    /// `remove_accept_encoding_header`
    pub removes_accept_encoding: Option<bool>,
    /// `compressor_library`
    pub library: Option<Compression>,
}
