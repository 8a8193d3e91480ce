//! What is counted of bodies that are compressed and decompressed.

use super::super::cell::{Cell, Counter, SparseCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.MANAGER.compressor.LIBRARY.[DIRECTION.]*`.
    CompressorStats {
        /// Bodies that were compressed.
        compressed: Counter = "compressed",
        /// Requests or responses that were not compressed.
        not_compressed: Counter = "not_compressed",
        /// Bytes of bodies before they were compressed.
        total_uncompressed_bytes: Counter = "total_uncompressed_bytes",
        /// Bytes of bodies after they were compressed.
        total_compressed_bytes: Counter = "total_compressed_bytes",
        /// Bodies that were too small.
        content_length_too_small: Counter = "content_length_too_small",
    }
}

statistics! {
    /// One worker's share of what `http.MANAGER.compressor.LIBRARY.*` tells of what clients accept.
    AcceptEncodingStats {
        /// Responses to requests that do not say what their client accepts.
        no_accept_header: Counter = "no_accept_header",
        /// Responses for clients that prefer what is not compressed.
        header_identity: Counter = "header_identity",
        /// Responses for clients that prefer this compression.
        header_compressor_used: Counter = "header_compressor_used",
        /// Responses for clients that prefer that of another filter of the chain.
        header_compressor_overshadowed: Counter = "header_compressor_overshadowed",
        /// Responses for clients that accept anything.
        header_wildcard: Counter = "header_wildcard",
        /// Responses for clients that accept nothing of what the chain can do.
        header_not_valid: Counter = "header_not_valid",
        /// Responses that were not compressed because they have an etag.
        not_compressed_etag: Counter = "not_compressed_etag",
    }
}

statistics! {
    /// One worker's share of `http.MANAGER.decompressor.LIBRARY.DIRECTION.*`.
    DecompressorStats {
        /// Bodies that were decompressed.
        decompressed: Counter = "decompressed",
        /// Bodies that were not decompressed.
        not_decompressed: Counter = "not_decompressed",
        /// Bytes of bodies after they were decompressed.
        total_uncompressed_bytes: Counter = "total_uncompressed_bytes",
        /// Bytes of bodies before they were decompressed.
        total_compressed_bytes: Counter = "total_compressed_bytes",
    }
}

statistics! {
    /// One worker's share of `http.MANAGER.decompressor.LIBRARY.decompressor_library.*`.
    DecompressionErrorStats {
        /// Bodies that are no gzip, end amid it, or become too large.
        zlib_data_error: SparseCounter = "zlib_data_error",
        /// Bodies that are no brotli, end amid it, or become too large.
        brotli_error: SparseCounter = "brotli_error",
        /// Bodies that become too large.
        brotli_output_overflow: SparseCounter = "brotli_output_overflow",
    }
}
