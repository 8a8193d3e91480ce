//! Trace context in headers: W3C `traceparent` and B3, read and written.
//!
//! Both are read as Envoy 1.40 reads them, which is laxer than their specifications in places.

use std::fmt::{self, Write as _};

use http::header::{HeaderMap, HeaderName, HeaderValue};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static B3: HeaderName = HeaderName::from_static("b3");
static B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
static B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
static B3_PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");

/// Where in which trace a span is. Displayed as a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; B3 may give only its lower half.
    pub trace_id: u128,
    /// The span.
    pub span_id: u64,
    /// The span it is part of, if that is known.
    pub parent_id: Option<u64>,
    /// Whether it is recorded.
    pub sampled: bool,
}

/// In which headers a context is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `traceparent`; `fresh` if the trace begins here, so that no `tracestate` can belong to it.
    W3c {
        /// Whether the trace begins here.
        fresh: bool,
    },
    /// B3's.
    B3 {
        /// One header for all, as it came; otherwise one for each part.
        single: bool,
        /// And `traceparent` besides.
        w3c: bool,
    },
}

/// A context was there, but cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What B3's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct B3Context {
    /// The caller's span; none if it only says whether to sample, or nothing at all.
    pub context: Option<TraceContext>,
    /// Whether to sample, if it says so.
    pub sampled: Option<bool>,
    /// Whether it came in a single header.
    pub single: bool,
}

/// The context in `traceparent`, if there is one.
///
/// # Errors
/// It is malformed.
pub fn w3c(headers: &HeaderMap) -> Result<Option<TraceContext>, Malformed> {
    let Some(value) = headers.get(&TRACEPARENT) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Malformed)?;
    parse_traceparent(text).map(Some).ok_or(Malformed)
}

/// What B3's headers say; with `or_w3c`, what `traceparent` says if they say nothing.
///
/// # Errors
/// Their context is malformed.
pub fn b3(headers: &HeaderMap, or_w3c: bool) -> Result<B3Context, Malformed> {
    let text = |name: &'static HeaderName| headers.get(name).map(HeaderValue::to_str);
    if let Some(value) = text(&B3) {
        return single_b3(value.map_err(|_| Malformed)?);
    }
    let sampled = text(&B3_SAMPLED).map(|value| matches!(value, Ok("1" | "true")));
    if let (Some(trace), Some(span)) = (text(&B3_TRACE_ID), text(&B3_SPAN_ID)) {
        let (trace_id, span_id) = (id(trace.ok())?, short_id(span.ok())?);
        let parent = text(&B3_PARENT_ID).filter(|value| !matches!(value, Ok("")));
        let parent_id = parent.map(|value| short_id(value.ok())).transpose()?;
        let context = TraceContext {
            trace_id,
            span_id,
            parent_id: parent_id.filter(|id| *id != 0),
            sampled: sampled.unwrap_or(false),
        };
        return Ok(B3Context { context: Some(context), sampled, single: false });
    }
    let other = if or_w3c { w3c(headers).unwrap_or(None) } else { None };
    Ok(B3Context {
        context: other,
        sampled: sampled.or(other.map(|context| context.sampled)),
        single: false,
    })
}

/// What `tracestate` says; it goes on as it came.
pub fn tracestate(headers: &HeaderMap) -> Option<&str> {
    headers.get(&TRACESTATE)?.to_str().ok()
}

impl TraceContext {
    /// Writes the context into `headers` in place of the one that is there.
    pub fn write(&self, propagation: Propagation, headers: &mut HeaderMap) {
        match propagation {
            Propagation::W3c { fresh } => {
                if fresh {
                    headers.remove(&TRACESTATE);
                }
                insert(headers, &TRACEPARENT, &self.traceparent());
            }
            Propagation::B3 { single, w3c } => {
                if single {
                    insert(headers, &B3, self.single_b3().as_bytes());
                } else {
                    insert(headers, &B3_TRACE_ID, self.short_trace_id().as_bytes());
                    insert(headers, &B3_SPAN_ID, format!("{:016x}", self.span_id).as_bytes());
                    if let Some(parent) = self.parent_id {
                        insert(headers, &B3_PARENT_ID, format!("{parent:016x}").as_bytes());
                    }
                    let sampled = if self.sampled { "1" } else { "0" };
                    headers.insert(&B3_SAMPLED, HeaderValue::from_static(sampled));
                }
                if w3c {
                    insert(headers, &TRACEPARENT, &self.traceparent());
                }
            }
        }
    }

    /// The trace's id in as few digits as B3 has for it: 16 or 32.
    pub fn short_trace_id(&self) -> String {
        match u64::try_from(self.trace_id) {
            Ok(short) => format!("{short:016x}"),
            Err(_) => format!("{:032x}", self.trace_id),
        }
    }

    fn single_b3(&self) -> String {
        let sampled = u8::from(self.sampled);
        let mut text = format!("{}-{:016x}-{sampled}", self.short_trace_id(), self.span_id);
        if let Some(parent) = self.parent_id {
            // Writing to a string cannot fail.
            let _ = write!(text, "-{parent:016x}");
        }
        text
    }

    /// The value of `traceparent`: `00-TRACE-SPAN-FLAGS`, written digit by digit since it is made per request.
    fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (trace, rest) = text.split_at_mut(35);
        write_hex(&self.trace_id.to_be_bytes(), trace);
        let (span, flags) = rest.split_at_mut(17);
        write_hex(&self.span_id.to_be_bytes(), span);
        write_hex(&[u8::from(self.sampled)], flags);
        text
    }
}

fn insert(headers: &mut HeaderMap, name: &'static HeaderName, value: &[u8]) {
    // Hexadecimal digits and hyphens always make a header value.
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(name, value);
    }
}

/// Writes `bytes` in hexadecimal to the end of `field`.
fn write_hex(bytes: &[u8], field: &mut [u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    for (pair, byte) in field.rchunks_exact_mut(2).zip(bytes.iter().rev()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.traceparent().iter().try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

/// `version-traceid-spanid-flags`, of any version.
fn parse_traceparent(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let mut next = |length| parts.next().filter(|part| part.len() == length);
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    hex(version)?;
    if parts.next().is_some() {
        return None;
    }
    let (trace_id, span_id) = (hex(trace)?, u64::try_from(hex(span)?).ok()?);
    let sampled = hex(flags)? & 1 == 1;
    let valid = trace_id != 0 && span_id != 0;
    valid.then_some(TraceContext { trace_id, span_id, parent_id: None, sampled })
}

/// `traceid-spanid[-sampled[-parentspanid]]`, or only `sampled`.
fn single_b3(text: &str) -> Result<B3Context, Malformed> {
    if let Ok(sampled) = sampling(text) {
        return Ok(B3Context { context: None, sampled: Some(sampled), single: true });
    }
    let mut parts = text.split('-');
    let mut next = |lengths: &[usize]| match parts.next() {
        Some(part) if lengths.contains(&part.len()) => Ok(Some(part)),
        None => Ok(None),
        Some(_) => Err(Malformed),
    };
    let (trace_id, span_id) = (id(next(&[16, 32])?)?, short_id(next(&[16])?)?);
    let sampled = next(&[1])?.map(sampling).transpose()?;
    let parent_id = next(&[16])?.map(|parent| short_id(Some(parent))).transpose()?;
    if parts.next().is_some() {
        return Err(Malformed);
    }
    let parent_id = parent_id.filter(|id| *id != 0);
    let context = TraceContext { trace_id, span_id, parent_id, sampled: sampled.unwrap_or(false) };
    Ok(B3Context { context: Some(context), sampled, single: true })
}

/// `0`, `1`, or `d` for debug.
fn sampling(text: &str) -> Result<bool, Malformed> {
    match text {
        "0" => Ok(false),
        "1" | "d" => Ok(true),
        _ => Err(Malformed),
    }
}

/// An id of up to 16 digits, or of exactly 32.
fn id(text: Option<&str>) -> Result<u128, Malformed> {
    let lengths_fit = |text: &&str| matches!(text.len(), 1..=16 | 32);
    text.filter(lengths_fit).and_then(hex).ok_or(Malformed)
}

/// An id of up to 16 digits.
fn short_id(text: Option<&str>) -> Result<u64, Malformed> {
    u64::try_from(id(text.filter(|text| text.len() <= 16))?).map_err(|_| Malformed)
}

/// Hexadecimal digits only: `from_str_radix` alone would take signs.
fn hex(text: &str) -> Option<u128> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn context(sampled: bool) -> TraceContext {
        TraceContext {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            parent_id: None,
            sampled,
        }
    }

    #[test]
    fn w3c_is_read() {
        assert_eq!(w3c(&headers(&[])), Ok(None));
        assert_eq!(w3c(&headers(&[("traceparent", PARENT)])), Ok(Some(context(true))));
        let later = PARENT.replacen("00", "cc", 1);
        assert_eq!(w3c(&headers(&[("traceparent", &later)])), Ok(Some(context(true))));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(w3c(&headers(&[("traceparent", bad)])), Err(Malformed), "{bad}");
        }
    }

    /// As Envoy 1.40 reads each of them.
    #[test]
    fn b3_is_read_in_both_forms() {
        let single = |rest: &str| b3(&headers(&[("b3", &format!("{TRACE}-{SPAN}{rest}"))]), false);
        let parent = Some(0xabc);
        for (rest, sampled, parent_id) in [
            ("", None, None),
            ("-0", Some(false), None),
            ("-d", Some(true), None),
            ("-1-0000000000000abc", Some(true), parent),
        ] {
            let context = TraceContext { parent_id, ..context(sampled.unwrap_or(false)) };
            let wanted = B3Context { context: Some(context), sampled, single: true };
            assert_eq!(single(rest), Ok(wanted), "{rest}");
        }
        for bad in ["-", "-x", "-1-", "-1-abc", "-1-0000000000000abc-1"] {
            assert_eq!(single(bad), Err(Malformed), "{bad}");
        }
        let only = b3(&headers(&[("b3", "0")]), true);
        assert_eq!(only, Ok(B3Context { context: None, sampled: Some(false), single: true }));
        assert_eq!(b3(&headers(&[("b3", "junk")]), false), Err(Malformed));

        let several = |more: &[(&'static str, &str)]| {
            let mut map = headers(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]);
            map.extend(headers(more));
            b3(&map, false)
        };
        let wanted = |sampled: Option<bool>, parent_id| {
            let context = TraceContext { parent_id, ..context(sampled.unwrap_or(false)) };
            Ok(B3Context { context: Some(context), sampled, single: false })
        };
        assert_eq!(several(&[]), wanted(None, None));
        assert_eq!(several(&[("x-b3-sampled", "true")]), wanted(Some(true), None));
        assert_eq!(several(&[("x-b3-sampled", "no")]), wanted(Some(false), None));
        assert_eq!(several(&[("x-b3-parentspanid", "abc")]), wanted(None, parent));
        assert_eq!(several(&[("x-b3-parentspanid", "xyz")]), Err(Malformed));
        let bad = headers(&[("x-b3-traceid", "bad"), ("x-b3-spanid", SPAN)]);
        assert_eq!(b3(&bad, false).unwrap().context.unwrap().trace_id, 0xbad);
    }

    #[test]
    fn w3c_stands_in_for_b3_where_that_is_wanted() {
        let map = headers(&[("traceparent", PARENT)]);
        let nothing = B3Context { context: None, sampled: None, single: false };
        assert_eq!(b3(&map, false), Ok(nothing));
        let wanted = B3Context { context: Some(context(true)), sampled: Some(true), single: false };
        assert_eq!(b3(&map, true), Ok(wanted));
        assert_eq!(b3(&headers(&[("traceparent", "zzz")]), true), Ok(nothing));
    }

    #[test]
    fn contexts_are_written_as_they_are_read() {
        let mine = TraceContext { parent_id: Some(0xabc), ..context(true) };
        let written = |propagation| {
            let mut map = headers(&[("tracestate", "a=b")]);
            mine.write(propagation, &mut map);
            map
        };
        let map = written(Propagation::W3c { fresh: false });
        assert_eq!(map, headers(&[("tracestate", "a=b"), ("traceparent", PARENT)]));
        assert!(!written(Propagation::W3c { fresh: true }).contains_key("tracestate"));
        for (single, with_w3c) in [(false, false), (false, true), (true, false), (true, true)] {
            let map = written(Propagation::B3 { single, w3c: with_w3c });
            let read = B3Context { context: Some(mine), sampled: Some(true), single };
            assert_eq!(b3(&map, false), Ok(read));
            assert_eq!(map.contains_key("traceparent"), with_w3c);
        }
        let short = TraceContext { trace_id: 0xbad, ..mine };
        assert_eq!(short.single_b3(), "0000000000000bad-00f067aa0ba902b7-1-0000000000000abc");
    }

    proptest! {
        #[test]
        fn no_header_panics(name in 0..3_usize, value in "[0-9a-f\\-+ x]{0,70}") {
            let name = ["traceparent", "b3", "x-b3-traceid"][name];
            let map = headers(&[(name, &value), ("x-b3-spanid", SPAN)]);
            let _ = w3c(&map);
            let _ = b3(&map, true);
        }

        #[test]
        fn what_is_written_is_read_back(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
            let context =
                TraceContext { trace_id: trace, span_id: span, parent_id: None, sampled };
            let map = headers(&[("traceparent", &context.to_string())]);
            prop_assert_eq!(w3c(&map), Ok(Some(context)));
        }
    }
}
