//! The statistics of filters that compress and decompress.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Sharded;
use super::sample::{FilterScope, FilterStatistics, Samples, Scope};
use super::stats::{
    AcceptEncodingStats, CompressorStats, DecompressionErrorStats, DecompressorStats,
};
use crate::config::compression::CompressionScope;

/// What stands before what is counted of requests.
const REQUEST: &str = "request";
const LIBRARY: &str = "decompressor_library";

/// See the module.
#[derive(Default)]
pub struct Compression {
    compressors: Sharded<CompressorStats>,
    accepted: Sharded<AcceptEncodingStats>,
    decompressors: Sharded<DecompressorStats>,
    errors: Sharded<DecompressionErrorStats>,
}

/// One worker's shards of the statistics of a compressor.
#[derive(Debug)]
pub struct CompressorShards {
    /// Of requests.
    pub request: Arc<CompressorStats>,
    /// Of responses.
    pub response: Arc<CompressorStats>,
    /// Of what clients accept.
    pub accepted: Arc<AcceptEncodingStats>,
}

/// One worker's shards of the statistics of a decompressor.
#[derive(Debug)]
pub struct DecompressorShards {
    /// Of requests.
    pub request: Arc<DecompressorStats>,
    /// Of responses.
    pub response: Arc<DecompressorStats>,
    /// Of what cannot be decompressed.
    pub errors: Arc<DecompressionErrorStats>,
}

impl Compression {
    /// Fresh shards of `http.MANAGER.compressor.LIBRARY.*` for the calling worker, counted until they are dropped.
    pub fn compressor(&self, scope: &CompressionScope) -> Arc<CompressorShards> {
        let [request, response, accepted] = compressor_scopes(scope);
        Arc::new(CompressorShards {
            request: self.compressors.shard(request),
            response: self.compressors.shard(response),
            accepted: self.accepted.shard(accepted),
        })
    }

    /// The same of `decompressor`.
    pub fn decompressor(&self, scope: &CompressionScope) -> Arc<DecompressorShards> {
        let [request, response, errors] = decompressor_scopes(scope);
        Arc::new(DecompressorShards {
            request: self.decompressors.shard(request),
            response: self.decompressors.shard(response),
            errors: self.errors.shard(errors),
        })
    }

    pub(super) fn collect(&self, configured: &BTreeSet<Scope>, out: &mut Samples) {
        let of = |kind| {
            configured
                .iter()
                .filter(move |scope| matches!(scope, Scope::Filter(it) if it.kind() == kind))
        };
        self.compressors.collect(of(FilterStatistics::Compressor), out);
        self.accepted.collect(of(FilterStatistics::AcceptEncoding), out);
        self.decompressors.collect(of(FilterStatistics::Decompressor), out);
        self.errors.collect(of(FilterStatistics::DecompressionError), out);
    }
}

/// What a compressor counts under: of requests, of responses, and of what clients accept.
pub fn compressor_scopes(scope: &CompressionScope) -> [Scope; 3] {
    let CompressionScope { manager, library, response } = scope;
    let of = |kind, part| Scope::Filter(FilterScope::compression(kind, [manager, library, part]));
    [
        of(FilterStatistics::Compressor, REQUEST),
        of(FilterStatistics::Compressor, response),
        of(FilterStatistics::AcceptEncoding, ""),
    ]
}

/// What a decompressor counts under: of requests, of responses, and of what cannot be decompressed.
pub fn decompressor_scopes(scope: &CompressionScope) -> [Scope; 3] {
    let CompressionScope { manager, library, response } = scope;
    let of = |kind, part| Scope::Filter(FilterScope::compression(kind, [manager, library, part]));
    [
        of(FilterStatistics::Decompressor, REQUEST),
        of(FilterStatistics::Decompressor, response),
        of(FilterStatistics::DecompressionError, LIBRARY),
    ]
}
