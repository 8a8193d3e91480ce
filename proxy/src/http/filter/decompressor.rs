//! `decompressor`: decompresses requests and responses, and tells upstreams that they may compress.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;

use super::compressor::has_token;
use super::passage::{Answering, Passage};
use super::recoded::{Ledger, PIECE, Recoded, Undecodable};
use crate::config::compression::{Decompressible, Decompression, Decompressor};
use crate::config::matcher::joined;
use crate::http::stream::Stream;
use crate::telemetry::metrics::{DecompressorShards, DecompressorStats};

/// Decompresses the request's body, and says what responses may be compressed with.
pub(super) fn request(config: &Decompressor, request: &mut Passage<'_>) {
    let encoding = config.library.encoding();
    if config.advertises
        && let Some(accepted) = with(joined(&request.head().headers, &ACCEPT_ENCODING), encoding)
    {
        request.head_mut().headers.insert(ACCEPT_ENCODING, accepted);
    }
    if request.body.is_end_stream() {
        return;
    }
    let shards = request.stream.connection.worker.filter_stats.decompressor(&config.scope);
    if !is_to_be_decompressed(config.request.as_ref(), encoding, &request.head().headers) {
        shards.request.not_decompressed.inc();
        return;
    }
    decoded(&mut request.head_mut().headers);
    shards.request.decompressed.inc();
    let ledger = Decompressed::new(config, Arc::clone(&shards.request), shards);
    let library = config.library;
    request.body.wrap(move |body| Box::new(Recoded::decompressed(body, library, ledger)));
}

/// Decompresses the answer's body.
pub(super) fn response(config: &Decompressor, stream: &Stream, answer: &mut Answering<'_>) {
    if answer.is_bodiless {
        return;
    }
    let encoding = config.library.encoding();
    let shards = stream.connection.worker.filter_stats.decompressor(&config.scope);
    if !is_to_be_decompressed(config.response.as_ref(), encoding, answer.headers) {
        shards.response.not_decompressed.inc();
        return;
    }
    decoded(answer.headers);
    shards.response.decompressed.inc();
    let ledger = Decompressed::new(config, Arc::clone(&shards.response), shards);
    let library = config.library;
    answer.wraps.push(move |body| Box::new(Recoded::decompressed(body, library, ledger)));
}

fn is_to_be_decompressed(
    which: Option<&Decompressible>,
    encoding: &str,
    headers: &HeaderMap,
) -> bool {
    which.is_some_and(|which| {
        let encodings = joined(headers, &CONTENT_ENCODING);
        let first = encodings.as_ref().and_then(|all| all.split(|byte| *byte == b',').next());
        first.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(encoding.as_bytes()))
            && (which.ignores_no_transform || !has_token(headers, &CACHE_CONTROL, "no-transform"))
    })
}

/// Makes headers say that their body is decompressed: the first of its encodings is gone.
fn decoded(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    let rest = joined(headers, &CONTENT_ENCODING).and_then(|all| {
        let comma = all.iter().position(|byte| *byte == b',')?;
        HeaderValue::from_bytes(all.get(comma + 1..)?.trim_ascii()).ok()
    });
    match rest {
        Some(rest) => drop(headers.insert(CONTENT_ENCODING, rest)),
        None => drop(headers.remove(CONTENT_ENCODING)),
    }
}

/// What is accepted, and `encoding` with full weight at the end.
fn with(accepted: Option<std::borrow::Cow<'_, [u8]>>, encoding: &str) -> Option<HeaderValue> {
    let accepted = accepted.unwrap_or_default();
    let others = accepted.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| {
        let name = item.split(|byte| *byte == b';').next().unwrap_or_default();
        !item.is_empty() && name.trim_ascii() != encoding.as_bytes()
    });
    let all: Vec<_> = others.chain([encoding.as_bytes()]).collect();
    HeaderValue::try_from(all.join(&b","[..])).ok()
}

/// Counts a body that is decompressed, and holds it to its limit.
struct Decompressed {
    library: Decompression,
    stats: Arc<DecompressorStats>,
    shards: Arc<DecompressorShards>,
    trailers: [HeaderName; 2],
    taken: u64,
    made: u64,
}

impl Decompressed {
    fn new(
        config: &Decompressor,
        stats: Arc<DecompressorStats>,
        shards: Arc<DecompressorShards>,
    ) -> Self {
        let Decompressor { library, trailers, .. } = config;
        Self { library: *library, stats, shards, trailers: trailers.clone(), taken: 0, made: 0 }
    }
}

impl Ledger for Decompressed {
    fn took(&mut self, bytes: u64) {
        self.taken += bytes;
        self.stats.total_compressed_bytes.add(bytes);
    }

    fn made(&mut self, bytes: u64) -> Result<(), Undecodable> {
        self.made += bytes;
        self.stats.total_uncompressed_bytes.add(bytes);
        let most = self.taken.saturating_mul(self.library.max_inflate_ratio().into());
        // What is small harms nobody.
        match self.made > most.max(PIECE as u64) {
            true => Err(Undecodable::TooLarge),
            false => Ok(()),
        }
    }

    fn failed(&self, error: Undecodable) {
        let errors = &self.shards.errors;
        match self.library {
            Decompression::Gzip { .. } => errors.zlib_data_error.inc(),
            Decompression::Brotli => errors.brotli_error.inc(),
        }
        if self.library == Decompression::Brotli && error == Undecodable::TooLarge {
            errors.brotli_output_overflow.inc();
        }
    }

    fn ended(&self, trailers: &mut Option<HeaderMap>) {
        let trailers = trailers.get_or_insert_default();
        for (name, bytes) in self.trailers.iter().zip([self.taken, self.made]) {
            trailers.append(name, bytes.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_learn_of_an_encoding_once() {
        for (accepted, told) in [
            (None, "gzip"),
            (Some(""), "gzip"),
            (Some("br"), "br,gzip"),
            (Some("gzip;q=0.1 , x"), "x,gzip"),
            (Some("gzip-x"), "gzip-x,gzip"),
        ] {
            let accepted = accepted.map(|text| text.as_bytes().into());
            assert_eq!(with(accepted, "gzip").unwrap(), told);
        }
    }

    #[test]
    fn only_the_first_encoding_is_undone() {
        let anything = Decompressible { ignores_no_transform: false };
        for (encodings, rest) in
            [("gzip", None), ("GZIP , br", Some("br")), ("br, gzip", Some("br, gzip"))]
        {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, encodings.parse().unwrap());
            if is_to_be_decompressed(Some(&anything), "gzip", &headers) {
                decoded(&mut headers);
            }
            let left = headers.get(CONTENT_ENCODING).map(|it| it.to_str().unwrap());
            assert_eq!(left, rest, "{encodings}");
        }
    }
}
