//! `x-request-id`: one random id per request, the same on every hop and in every log.

use fastrand::Rng;
use http::HeaderMap;
use http::header::HeaderValue;

use super::names::{X_ENVOY_FORCE_TRACE, X_REQUEST_ID};
use crate::config::http::RequestIdOptions;
use crate::telemetry::trace::Reason;

/// Gives the request an id if it has none. At the edge an id from outside is replaced, unless
/// `preserve_external_request_id` trusts it; `edge` is [`Caller::edge`](super::forwarded::Caller::edge).
pub fn ensure(headers: &mut HeaderMap, options: RequestIdOptions, edge: bool, rng: &mut Rng) {
    let replace = edge && !options.preserve_external;
    if !options.generate {
        return;
    }
    match headers.get(X_REQUEST_ID) {
        Some(id) if !replace => {
            // Nobody outside decides what is traced.
            let packs = edge && options.pack_trace_reason;
            let packed = packs.then(|| Reason::NotTraceable.pack(id.as_bytes())).flatten();
            if let Some(Ok(id)) = packed.map(|id| HeaderValue::from_bytes(&id)) {
                headers.insert(X_REQUEST_ID, id);
            }
        }
        _ => drop(headers.insert(X_REQUEST_ID, value(rng))),
    }
}

/// Returns the id to the client if configured (`always_set_request_id_in_response`) or if a trusted
/// caller asked for a trace.
pub fn copy_to_response(response: &mut HeaderMap, request: &HeaderMap, options: RequestIdOptions) {
    let wanted = options.always_in_response || request.contains_key(X_ENVOY_FORCE_TRACE);
    if let Some(id) = request.get(X_REQUEST_ID).filter(|_| wanted) {
        response.insert(X_REQUEST_ID, id.clone());
    }
}

fn value(rng: &mut Rng) -> HeaderValue {
    // Hexadecimal digits and hyphens always make a header value.
    HeaderValue::from_bytes(&uuid_v4(rng.u128(..))).unwrap_or(HeaderValue::from_static(""))
}

/// Appends a UUID made of two numbers, of which one is random.
pub fn uuid(high: u64, low: u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&uuid_v4(u128::from(high) << 64 | u128::from(low)));
    true
}

/// The text of a version 4 UUID (RFC 9562) made of `random`.
fn uuid_v4(random: u128) -> [u8; 36] {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let id = random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let mut text = [b'-'; 36];
    let digits = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
    for ((_, digit), shift) in digits.zip((0..128).step_by(4).rev()) {
        let nibble = u8::try_from(id >> shift & 15).unwrap_or(0);
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: RequestIdOptions = RequestIdOptions {
        generate: true,
        preserve_external: false,
        always_in_response: false,
        pack_trace_reason: true,
        decides_sampling: true,
    };

    fn after(options: RequestIdOptions, edge: bool, id: Option<&'static str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.extend(id.map(|id| (X_REQUEST_ID, HeaderValue::from_static(id))));
        ensure(&mut headers, options, edge, &mut Rng::with_seed(1));
        headers.get(X_REQUEST_ID).map(|id| id.to_str().unwrap().to_owned())
    }

    #[test]
    fn ids_have_the_form_of_a_random_uuid() {
        let text = |random| String::from_utf8(uuid_v4(random).to_vec()).unwrap();
        assert_eq!(text(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(text(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            text(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            "01234567-89ab-4def-8123-456789abcdef"
        );
    }

    #[test]
    fn an_edge_replaces_ids_unless_told_to_preserve_them() {
        let preserve = RequestIdOptions { preserve_external: true, ..OPTIONS };
        let off = RequestIdOptions { generate: false, ..OPTIONS };
        let mine = || Some("mine".to_owned());
        assert_eq!(after(OPTIONS, false, Some("mine")), mine());
        assert_ne!(after(OPTIONS, true, Some("mine")), mine());
        assert_eq!(after(preserve, true, Some("mine")), mine());
        assert!(after(preserve, true, None).is_some());
        assert!(after(OPTIONS, false, None).is_some());
        assert_eq!(after(off, true, Some("mine")), mine());
        assert_eq!(after(off, true, None), None);
    }

    #[test]
    fn the_client_gets_the_id_back_on_demand() {
        let mut request = HeaderMap::new();
        request.insert(X_REQUEST_ID, HeaderValue::from_static("mine"));
        let returned = |request: &HeaderMap, options| {
            let mut response = HeaderMap::new();
            copy_to_response(&mut response, request, options);
            response.contains_key(X_REQUEST_ID)
        };
        assert!(!returned(&request, OPTIONS));
        assert!(returned(&request, RequestIdOptions { always_in_response: true, ..OPTIONS }));
        request.insert(X_ENVOY_FORCE_TRACE, HeaderValue::from_static("1"));
        assert!(returned(&request, OPTIONS));
    }
}
