//! Trace context in headers: W3C `traceparent` and B3, read for logs, made when a request has none.
//!
//! This proxy reports no spans of its own, so a context that is there passes through untouched.

use std::fmt::{self, Write as _};

use http::header::{HeaderMap, HeaderName, HeaderValue};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static B3: HeaderName = HeaderName::from_static("b3");
static B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
static B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Which trace a request belongs to. Displayed as a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never 0; B3 may give only its lower half.
    pub trace_id: u128,
    /// The caller's span, never 0.
    pub span_id: u64,
    /// Whether the caller records this trace.
    pub sampled: bool,
}

impl TraceContext {
    /// The context `headers` carry; none if there is none or it is malformed.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &'static HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        // Two contexts are as good as none.
        let single = headers.get_all(&TRACEPARENT).iter().count() == 1;
        let w3c = text(&TRACEPARENT).filter(|_| single).and_then(Self::parse_traceparent);
        if let Some(context) = w3c.or_else(|| text(&B3).and_then(Self::parse_b3)) {
            return Some(context);
        }
        let (trace, span) = (text(&B3_TRACE_ID)?, text(&B3_SPAN_ID)?);
        let sampled = text(&B3_FLAGS) == Some("1") || text(&B3_SAMPLED).is_some_and(is_b3_sampled);
        Self::from_b3(trace, span, sampled)
    }

    /// Gives `headers` a `traceparent` if they carry no context, and returns the context they carry then.
    ///
    /// `random` yields random numbers; `sampled` is what a new context says. A context that is there is
    /// left alone, in its own format; a malformed one is replaced, as W3C asks.
    pub fn ensure(headers: &mut HeaderMap, sampled: bool, mut random: impl FnMut() -> u64) -> Self {
        if let Some(context) = Self::from_headers(headers) {
            return context;
        }
        let mut number = || random().max(1);
        let trace_id = u128::from(number()) << 64 | u128::from(number());
        let context = Self { trace_id, span_id: number(), sampled };
        if let Ok(value) = HeaderValue::from_bytes(&context.traceparent()) {
            headers.remove(&TRACESTATE);
            headers.insert(&TRACEPARENT, value);
        }
        context
    }

    /// `version-traceid-spanid-flags`; later versions may append more.
    fn parse_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut next = |length| parts.next().filter(|part| part.len() == length);
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let version = hex(version)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        Self::new(hex(trace)?, hex(span)?, hex(flags)? & 1 == 1)
    }

    /// `traceid-spanid[-sampled[-parentspanid]]`
    fn parse_b3(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (trace, span) = (parts.next()?, parts.next()?);
        Self::from_b3(trace, span, parts.next().is_some_and(is_b3_sampled))
    }

    fn from_b3(trace: &str, span: &str, sampled: bool) -> Option<Self> {
        let lengths_fit = matches!(trace.len(), 16 | 32) && span.len() == 16;
        lengths_fit.then_some(())?;
        Self::new(hex(&trace.to_ascii_lowercase())?, hex(&span.to_ascii_lowercase())?, sampled)
    }

    fn new(trace_id: u128, span_id: u128, sampled: bool) -> Option<Self> {
        let span_id = u64::try_from(span_id).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled })
    }
}

impl TraceContext {
    /// The value of `traceparent`: `00-TRACE-SPAN-FLAGS`, written digit by digit since it is made per request.
    fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (trace, rest) = text.split_at_mut(35);
        write_hex(self.trace_id, trace);
        let (span, flags) = rest.split_at_mut(17);
        write_hex(self.span_id.into(), span);
        write_hex(u128::from(self.sampled), flags);
        text
    }
}

/// Writes `number` in hexadecimal to the end of `field`, as far back as it has digits.
fn write_hex(number: u128, field: &mut [u8]) {
    let mut rest = number;
    for digit in field.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        let nibble = (rest & 15) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        rest >>= 4;
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.traceparent().iter().try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

/// `1`, `true` (older tracers) or `d` for debug.
fn is_b3_sampled(text: &str) -> bool {
    matches!(text, "1" | "d" | "true")
}

/// Lower-case hexadecimal digits only: `from_str_radix` alone would take signs.
fn hex(text: &str) -> Option<u128> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            sampled,
        }
    }

    #[test]
    fn every_form_is_read() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let span = "00f067aa0ba902b7";
        let single = format!("{trace}-{span}-d-0000000000000001");
        for (pairs, wanted) in [
            (vec![("traceparent", PARENT)], context(true)),
            (vec![("b3", &*single)], context(true)),
            (vec![("x-b3-traceid", trace), ("x-b3-spanid", span)], context(false)),
            (
                vec![("x-b3-traceid", trace), ("x-b3-spanid", span), ("x-b3-sampled", "1")],
                context(true),
            ),
        ] {
            assert_eq!(TraceContext::from_headers(&headers(&pairs)), Some(wanted), "{pairs:?}");
        }
        let later = PARENT.replacen("00", "cc", 1) + "-more";
        let read = TraceContext::from_headers(&headers(&[("traceparent", &later)]));
        assert_eq!(read, Some(context(true)));
    }

    #[test]
    fn a_context_that_is_there_is_left_alone() {
        for name in ["traceparent", "b3"] {
            let value = if name == "b3" { PARENT.get(3..).unwrap() } else { PARENT };
            let before = headers(&[(name, value), ("tracestate", "a=b")]);
            let mut after = before.clone();
            TraceContext::ensure(&mut after, false, || panic!("no number is needed"));
            assert_eq!(after, before);
        }
    }

    #[test]
    fn a_malformed_context_is_replaced() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let mut map = headers(&[("traceparent", bad), ("tracestate", "a=b")]);
            let mut numbers = 1..;
            let made = TraceContext::ensure(&mut map, true, || numbers.next().unwrap());
            assert_eq!(made, TraceContext { trace_id: 1 << 64 | 2, span_id: 3, sampled: true });
            assert_eq!(TraceContext::from_headers(&map), Some(made));
            assert!(!map.contains_key("tracestate"));
        }
    }

    #[test]
    fn two_contexts_are_none() {
        let mut map = headers(&[("traceparent", PARENT)]);
        map.append("traceparent", HeaderValue::from_static(PARENT));
        assert_eq!(TraceContext::from_headers(&map), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(name in 0..3_usize, value in "[0-9a-f\\-+ x]{0,64}") {
            let name = ["traceparent", "b3", "x-b3-traceid"][name];
            let map = headers(&[(name, &value), ("x-b3-spanid", "00f067aa0ba902b7")]);
            let _ = TraceContext::from_headers(&map);
        }

        #[test]
        fn what_is_written_is_read_back(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
            let context = TraceContext { trace_id: trace, span_id: span, sampled };
            let map = headers(&[("traceparent", &context.to_string())]);
            prop_assert_eq!(TraceContext::from_headers(&map), Some(context));
        }
    }
}
