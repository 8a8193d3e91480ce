//! `compressor`: compresses responses for clients that accept it, and requests if that is wanted.

mod choice;
mod obstacle;

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, VARY,
};
use http_body::Body as _;
use smallvec::SmallVec;

use super::Memory;
use super::passage::{Answering, Passage};
use super::recoded::{Ledger, Recoded, Undecodable};
use crate::config::compression::{Compression, Compressor, EtagRule, RouteCompression};
use crate::config::http_filter::{FilterKind, FilterRule, HttpFilter};
use crate::config::matcher::joined;
use crate::http::stream::Stream;
use crate::http::upgrade;
use crate::route::Said;
use crate::telemetry::metrics::{AcceptEncodingStats, CompressorStats};
use choice::{Candidate, Choice, choose};
use obstacle::Obstacle;

pub(super) use obstacle::has_token;

const STATUS: HeaderName = HeaderName::from_static("x-envoy-compression-status");

/// What routes say to a filter; the most specific one counts.
fn own<'a>(filter: &str, said: Said<'a>) -> Option<&'a RouteCompression> {
    said.to(filter).find_map(|rule| match rule {
        FilterRule::Compressor(rule) => Some(rule),
        _ => None,
    })
}

fn library(config: &Compressor, own: Option<&RouteCompression>) -> Compression {
    own.and_then(|own| own.library).unwrap_or(config.library)
}

fn compresses_responses(config: &Compressor, own: Option<&RouteCompression>) -> bool {
    own.and_then(|own| own.enabled).unwrap_or(config.response.enabled)
}

/// Remembers what the client accepts, and compresses the request's body if that is wanted.
pub(super) fn request(config: &Compressor, filter: &str, request: &mut Passage<'_>) -> Memory {
    let own = own(filter, request.said());
    let accepted = value(&request.head().headers, &ACCEPT_ENCODING);
    let removes = own
        .and_then(|own| own.removes_accept_encoding)
        .unwrap_or(config.response.removes_accept_encoding);
    if accepted.is_some() && removes && compresses_responses(config, own) {
        request.head_mut().headers.remove(ACCEPT_ENCODING);
    }
    let stats = request.stream.connection.worker.filter_stats.compressor(&config.scope);
    if !compresses_request(config, request, &stats.request) {
        stats.request.not_compressed.inc();
        return Memory::Accepts(accepted, stats);
    }
    stats.request.compressed.inc();
    let library = library(config, own);
    encoded(&mut request.head_mut().headers, library);
    let ledger = Compressed(Arc::clone(&stats.request));
    request.body.wrap(move |body| Box::new(Recoded::compressed(body, library, ledger)));
    Memory::Accepts(accepted, stats)
}

fn compresses_request(config: &Compressor, request: &Passage<'_>, stats: &CompressorStats) -> bool {
    let headers = &request.head().headers;
    let Some(which) = config.request.as_ref().filter(|_| !request.body.is_end_stream()) else {
        return false;
    };
    if upgrade::requested(headers).is_some() {
        return false;
    }
    if !which.is_large_enough(headers) {
        stats.content_length_too_small.inc();
        return false;
    }
    which.is_of_type(headers) && !headers.contains_key(CONTENT_ENCODING)
}

/// The compressors of a chain, of which one is chosen once for each response.
pub(super) struct Chain<'a> {
    filters: &'a [HttpFilter],
    memories: &'a [Option<Memory>],
    said: Said<'a>,
    choice: Option<Choice>,
}

impl<'a> Chain<'a> {
    /// Those among `filters`, to which the route says this.
    pub(super) fn new(
        filters: &'a [HttpFilter],
        memories: &'a [Option<Memory>],
        said: Said<'a>,
    ) -> Self {
        Self { filters, memories, said, choice: None }
    }

    /// Which compression is chosen for a response with these headers, by the first filter that asks. The content type
    /// is known to be one of `fits`.
    fn choice(
        &mut self,
        accepted: &[u8],
        headers: &HeaderMap,
        fits: Option<&Compressor>,
    ) -> Choice {
        *self.choice.get_or_insert_with(|| {
            let mut candidates: SmallVec<[Candidate; 4]> = SmallVec::new();
            for (filter, memory) in self.filters.iter().zip(self.memories) {
                let FilterKind::Compressor(config) = &filter.kind else { continue };
                let fits = fits.is_some_and(|fits| std::ptr::eq(fits, &raw const **config));
                if memory.is_some() && (fits || config.response.which.is_of_type(headers)) {
                    let library = library(config, own(&filter.name, self.said));
                    let (encoding, first) = (library.encoding(), config.choose_first);
                    candidates.push(Candidate { encoding, first });
                }
            }
            choose(accepted, &candidates)
        })
    }

    /// Whether the client's words choose `encoding`, and counts them.
    fn chooses(
        &mut self,
        encoding: &str,
        memory: &Memory,
        headers: &HeaderMap,
        fits: Option<&Compressor>,
        stats: &AcceptEncodingStats,
    ) -> bool {
        let Memory::Accepts(Some(accepted), _) = memory else {
            stats.no_accept_header.inc();
            return false;
        };
        let choice = self.choice(accepted.as_bytes(), headers, fits);
        let chosen = choice.encoding() == Some(encoding);
        match choice {
            Choice::Named(_) if chosen => stats.header_compressor_used.inc(),
            Choice::Named(_) => stats.header_compressor_overshadowed.inc(),
            Choice::Any(_) => stats.header_wildcard.inc(),
            Choice::Identity => stats.header_identity.inc(),
            Choice::Nothing => stats.header_not_valid.inc(),
        }
        chosen
    }
}

/// Compresses the answer's body, if nothing stands against it.
pub(super) fn response(
    config: &Compressor,
    filter: &str,
    memory: &Memory,
    chain: &mut Chain<'_>,
    stream: &Stream,
    answer: &mut Answering<'_>,
) {
    let own = own(filter, chain.said);
    let (library, rules) = (library(config, own), &config.response);
    let stats = match memory {
        Memory::Accepts(_, stats) => Arc::clone(stats),
        _ => stream.connection.worker.filter_stats.compressor(&config.scope),
    };
    let enabled = compresses_responses(config, own);
    let obstacle = Obstacle::find(rules, enabled, answer.status, answer.headers);
    match obstacle {
        Some(Obstacle::Length) => stats.response.content_length_too_small.inc(),
        Some(Obstacle::Etag) => stats.accepted.not_compressed_etag.inc(),
        _ => {}
    }
    let asks = match obstacle {
        None => true,
        Some(Obstacle::Disabled | Obstacle::Length) => false,
        Some(_) => !rules.tells_status,
    };
    let encoding = library.encoding();
    let fits = obstacle.is_none().then_some(config);
    let chosen = asks
        && !answer.is_bodiless
        && chain.chooses(encoding, memory, answer.headers, fits, &stats.accepted);
    let compresses = chosen && obstacle.is_none();
    if rules.tells_status && !answer.is_bodiless {
        tell(encoding, obstacle, compresses, answer.headers);
    }
    if compresses {
        stats.response.compressed.inc();
        without_strong_etag(rules.etag, answer.headers);
        encoded(answer.headers, library);
        let ledger = Compressed(Arc::clone(&stats.response));
        answer.wraps.push(move |body| Box::new(Recoded::compressed(body, library, ledger)));
    } else {
        stats.response.not_compressed.inc();
    }
    // Also of what is not compressed for this client: it might be for another one.
    if obstacle.is_none() {
        vary(answer.headers);
    }
}

/// Says what becomes of the response.
fn tell(encoding: &str, obstacle: Option<Obstacle>, compresses: bool, headers: &mut HeaderMap) {
    let status: Cow<'_, str> = match obstacle.and_then(Obstacle::told) {
        Some(reason) => reason.into(),
        None if compresses => {
            let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            format!("Compressed;OriginalLength={}", length.unwrap_or_default()).into()
        }
        None => return,
    };
    if let Ok(value) = HeaderValue::try_from(format!("{encoding};{status}")) {
        headers.append(STATUS, value);
    }
}

/// Makes headers say that their body is compressed.
fn encoded(headers: &mut HeaderMap, library: Compression) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(library.encoding()));
}

/// A strong etag says that the bytes are the same.
fn without_strong_etag(rule: EtagRule, headers: &mut HeaderMap) {
    let Some(etag) = joined(headers, &ETAG) else { return };
    if matches!(&*etag, [b'w' | b'W', b'/', ..]) {
        return;
    }
    let weak = match rule {
        EtagRule::Weaken => HeaderValue::from_bytes(&[b"W/", &*etag].concat()).ok(),
        EtagRule::Remove | EtagRule::Respect => None,
    };
    match weak {
        Some(weak) => drop(headers.insert(ETAG, weak)),
        None => drop(headers.remove(ETAG)),
    }
}

/// Makes headers say that the body depends on what the client accepts.
fn vary(headers: &mut HeaderMap) {
    let ours = "Accept-Encoding";
    let is_ours = |it: &[u8]| it.trim_ascii() == ours.as_bytes();
    let value = match joined(headers, &VARY) {
        Some(list) if list.split(|byte| *byte == b',').any(is_ours) => return,
        Some(list) => HeaderValue::try_from([&*list, b", ", ours.as_bytes()].concat()),
        None => Ok(HeaderValue::from_static(ours)),
    };
    if let Ok(value) = value {
        headers.insert(VARY, value);
    }
}

/// All values of `name` as one.
fn value(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    match joined(headers, name)? {
        Cow::Borrowed(_) => headers.get(name).cloned(),
        Cow::Owned(all) => HeaderValue::try_from(all).ok(),
    }
}

/// Counts a body that is compressed.
struct Compressed(Arc<CompressorStats>);

impl Ledger for Compressed {
    fn took(&mut self, bytes: u64) {
        self.0.total_uncompressed_bytes.add(bytes);
    }

    fn made(&mut self, bytes: u64) -> Result<(), Undecodable> {
        self.0.total_compressed_bytes.add(bytes);
        Ok(())
    }

    fn failed(&self, _: Undecodable) {}

    fn ended(&self, _: &mut Option<HeaderMap>) {}
}
