//! What a request must look like before anything else reads it, beyond what the codec has checked.
//!
//! The codec refuses malformed lines, control bytes and contradictory lengths by itself, and re-makes
//! the framing towards the upstream. Here follow the rules that are Envoy's, or stricter than Envoy's
//! because a request must not mean two things to two readers.

use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};

use super::host;
use crate::config::http::{Http1Options, HttpLimits, Underscores};

/// A request that is answered at once; the connection is closed after it (HTTP/1) or the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// The answer.
    pub status: StatusCode,
    /// Response code details, as Envoy names them.
    pub details: &'static str,
    /// Whether the client broke the protocol: response flag `DPE`.
    pub protocol_error: bool,
}

impl Reject {
    const fn protocol_error(status: StatusCode, details: &'static str) -> Self {
        Self { status, details, protocol_error: true }
    }

    const fn bad_request(details: &'static str) -> Self {
        Self::protocol_error(StatusCode::BAD_REQUEST, details)
    }

    const fn plain(status: StatusCode, details: &'static str) -> Self {
        Self { status, details, protocol_error: false }
    }
}

/// Checks version, method, target, host, framing headers and limits. The answer is the authority the
/// request is for: of the target (`:authority`, absolute form), else of the Host header, else the
/// default for HTTP/1.0.
pub fn check<'a>(
    request: &'a Parts,
    http1: &'a Http1Options,
    limits: &HttpLimits,
) -> Result<&'a str, Reject> {
    check_version(request.version, http1)?;
    check_limits(request, limits)?;
    check_framing(&request.headers)?;
    let authority = authority(request, http1)?;
    check_target(request)?;
    Ok(authority)
}

/// Treats header names with underscores as configured: many servers read `x_user` as `x-user`.
pub fn apply_underscores(
    headers: &mut HeaderMap,
    action: Underscores,
    version: Version,
) -> Result<(), Reject> {
    let has_underscore = |name: &&HeaderName| name.as_str().contains('_');
    match action {
        Underscores::Allow => Ok(()),
        Underscores::RejectRequest if headers.keys().any(|name| has_underscore(&name)) => {
            Err(Reject::bad_request(by_version(
                version,
                "http1.unexpected_underscore",
                "http2.unexpected_underscore",
            )))
        }
        Underscores::RejectRequest => Ok(()),
        Underscores::DropHeader => {
            while let Some(name) = headers.keys().find(has_underscore).cloned() {
                headers.remove(name);
            }
            Ok(())
        }
    }
}

fn check_version(version: Version, http1: &Http1Options) -> Result<(), Reject> {
    match version {
        Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        Version::HTTP_10 if http1.accept_http_10 => Ok(()),
        _ => Err(Reject::protocol_error(StatusCode::UPGRADE_REQUIRED, "low_version")),
    }
}

fn check_limits(request: &Parts, limits: &HttpLimits) -> Result<(), Reject> {
    let too_much = |http1, http2| {
        let details = by_version(request.version, http1, http2);
        Reject::protocol_error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, details)
    };
    let within = |count: usize, limit: u32| u32::try_from(count).is_ok_and(|count| count <= limit);
    if !within(request.headers.len(), limits.max_headers_count) {
        return Err(too_much("http1.too_many_headers", "http2.too_many_headers"));
    }
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    if !within(target + fields.sum::<usize>(), limits.max_request_headers) {
        return Err(too_much("http1.headers_too_large", "http2.headers_too_large"));
    }
    Ok(())
}

/// One way to know where the body ends: a length, or exactly the coding `chunked`.
fn check_framing(headers: &HeaderMap) -> Result<(), Reject> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(Reject::bad_request("http1.content_length_and_chunked_not_allowed"));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Reject::protocol_error(
            StatusCode::NOT_IMPLEMENTED,
            "http1.invalid_transfer_encoding",
        ));
    }
    Ok(())
}

/// Exactly one host, and a legal one.
fn authority<'a>(request: &'a Parts, http1: &'a Http1Options) -> Result<&'a str, Reject> {
    const INVALID: Reject = Reject::bad_request("http.invalid_authority");
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(INVALID);
    }
    let authority = match (request.uri.authority(), host) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, Some(host)) => Some(host.to_str().map_err(|_| INVALID)?),
        (None, None) if request.version == Version::HTTP_10 => {
            http1.default_host_for_http_10.as_deref()
        }
        (None, None) => None,
    };
    match authority {
        Some(authority) if host::is_valid(authority) => Ok(authority),
        Some(_) => Err(INVALID),
        None => Err(Reject::plain(StatusCode::BAD_REQUEST, "missing_host_header")),
    }
}

fn check_target(request: &Parts) -> Result<(), Reject> {
    let is_http1 = request.version < Version::HTTP_2;
    if is_http1 && !is_known_method(&request.method) {
        return Err(Reject::bad_request("http1.codec_error"));
    }
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Reject::bad_request(by_version(
            request.version,
            "http1.invalid_scheme",
            "http.invalid_scheme",
        )));
    }
    let path = request.uri.path_and_query().map_or("", |target| target.as_str());
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reject::bad_request("http.invalid_path"));
    }
    match path {
        _ if path.starts_with('/') || request.method == Method::CONNECT => Ok(()),
        "*" if request.method == Method::OPTIONS => {
            Err(Reject::plain(StatusCode::NOT_FOUND, "absolute_path_rejected"))
        }
        _ => Err(Reject::bad_request(by_version(
            request.version,
            "http1.invalid_url",
            "http.invalid_path",
        ))),
    }
}

/// The methods that Envoy's HTTP/1 codec knows; letter case counts.
fn is_known_method(method: &Method) -> bool {
    const EXTENSIONS: [&str; 25] = [
        "ACL",
        "BIND",
        "CHECKOUT",
        "COPY",
        "LINK",
        "LOCK",
        "M-SEARCH",
        "MERGE",
        "MKACTIVITY",
        "MKCALENDAR",
        "MKCOL",
        "MOVE",
        "NOTIFY",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "REBIND",
        "REPORT",
        "SEARCH",
        "SOURCE",
        "SUBSCRIBE",
        "UNBIND",
        "UNLINK",
        "UNLOCK",
        "UNSUBSCRIBE",
    ];
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD => true,
        Method::OPTIONS | Method::PATCH | Method::CONNECT | Method::TRACE => true,
        _ => EXTENSIONS.contains(&method.as_str()),
    }
}

fn by_version(version: Version, http1: &'static str, http2: &'static str) -> &'static str {
    if version < Version::HTTP_2 { http1 } else { http2 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use proptest::prelude::*;

    use super::*;

    const HTTP1: Http1Options = Http1Options {
        accept_http_10: false,
        default_host_for_http_10: None,
        enable_trailers: false,
        proper_case: false,
    };

    const LIMITS: HttpLimits = HttpLimits {
        max_request_headers: 1024,
        max_headers_count: 10,
        idle_timeout: None,
        max_connection_duration: None,
        max_stream_duration: None,
        max_requests_per_connection: 0,
        underscores: Underscores::Allow,
        stream_idle_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        drain_timeout: Duration::ZERO,
        delayed_close_timeout: Duration::ZERO,
    };

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = Request::builder().method(method).uri(target);
        let builder =
            headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn verdict(request: &Parts) -> String {
        match check(request, &HTTP1, &LIMITS) {
            Ok(authority) => authority.to_owned(),
            Err(reject) => format!("{} {}", reject.status.as_u16(), reject.details),
        }
    }

    /// Answers are Envoy 1.40's, but for several hosts, user info and bad ports, which it lets pass.
    #[test]
    fn requests_are_read_in_one_way_or_refused() {
        const HOST: (&str, &str) = ("host", "a");
        for (method, target, headers, wanted) in [
            ("GET", "/", &[HOST][..], "a"),
            ("GET", "http://z:80/", &[HOST], "z:80"),
            ("GET", "/", &[], "400 missing_host_header"),
            ("GET", "/", &[HOST, ("host", "b")], "400 http.invalid_authority"),
            ("GET", "/", &[HOST, HOST], "400 http.invalid_authority"),
            ("GET", "/", &[("host", "a/b")], "400 http.invalid_authority"),
            ("GET", "/", &[("host", "u@a")], "400 http.invalid_authority"),
            ("GET", "http://u:p@z/", &[HOST], "400 http.invalid_authority"),
            ("GET", "ftp://z/", &[HOST], "400 http1.invalid_scheme"),
            ("GET", "*", &[HOST], "400 http1.invalid_url"),
            ("OPTIONS", "*", &[HOST], "404 absolute_path_rejected"),
            ("FOO", "/", &[HOST], "400 http1.codec_error"),
            ("get", "/", &[HOST], "400 http1.codec_error"),
            ("PROPFIND", "/", &[HOST], "a"),
            ("CONNECT", "a:80", &[HOST], "a:80"),
            ("GET", "/\u{e9}", &[HOST], "400 http.invalid_path"),
            ("GET", "/", &[HOST, ("transfer-encoding", "Chunked")], "a"),
            (
                "GET",
                "/",
                &[HOST, ("transfer-encoding", "gzip, chunked")],
                "501 http1.invalid_transfer_encoding",
            ),
            (
                "GET",
                "/",
                &[HOST, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                "501 http1.invalid_transfer_encoding",
            ),
            (
                "GET",
                "/",
                &[HOST, ("transfer-encoding", "chunked"), ("content-length", "0")],
                "400 http1.content_length_and_chunked_not_allowed",
            ),
        ] {
            assert_eq!(
                verdict(&request(method, target, headers)),
                wanted,
                "{method} {target} {headers:?}"
            );
        }
    }

    #[test]
    fn old_versions_need_permission_and_may_have_a_default_host() {
        let mut old = request("GET", "/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(verdict(&old), "426 low_version");
        let default_host_for_http_10 = Some("d.example".into());
        let accepting = Http1Options { accept_http_10: true, default_host_for_http_10, ..HTTP1 };
        assert_eq!(check(&old, &accepting, &LIMITS), Ok("d.example"));
        old.headers.insert(HOST, "a".parse().unwrap());
        assert_eq!(check(&old, &accepting, &LIMITS), Ok("a"));
        old.version = Version::HTTP_09;
        assert_eq!(check(&old, &accepting, &LIMITS).unwrap_err().details, "low_version");
    }

    #[test]
    fn headers_are_limited_in_number_and_size() {
        let mut many = request("GET", "/", &[("host", "a")]);
        for _ in 0..9 {
            many.headers.append("x-a", "1".parse().unwrap());
        }
        assert_eq!(verdict(&many), "a");
        many.headers.append("x-a", "1".parse().unwrap());
        assert_eq!(verdict(&many), "431 http1.too_many_headers");
        many.version = Version::HTTP_2;
        assert_eq!(verdict(&many), "431 http2.too_many_headers");
        let long = "x".repeat(1024);
        assert_eq!(
            verdict(&request("GET", "/", &[("host", "a"), ("x-a", &long)])),
            "431 http1.headers_too_large"
        );
        assert_eq!(
            verdict(&request("GET", &format!("/{long}"), &[("host", "a")])),
            "431 http1.headers_too_large"
        );
    }

    #[test]
    fn underscores_are_passed_refused_or_dropped() {
        let after = |action| {
            let mut headers =
                request("GET", "/", &[("a_b", "1"), ("a-b", "2"), ("c_d", "3"), ("a_b", "4")])
                    .headers;
            apply_underscores(&mut headers, action, Version::HTTP_11).map(|()| headers.len())
        };
        assert_eq!(after(Underscores::Allow), Ok(4));
        assert_eq!(after(Underscores::DropHeader), Ok(1));
        assert_eq!(
            after(Underscores::RejectRequest).unwrap_err().details,
            "http1.unexpected_underscore"
        );
        let mut clean = request("GET", "/", &[("a-b", "2")]).headers;
        assert_eq!(
            apply_underscores(&mut clean, Underscores::RejectRequest, Version::HTTP_2),
            Ok(())
        );
    }

    proptest! {
        #[test]
        fn what_passes_has_one_legal_host(hosts in prop::collection::vec("[!-~]{0,8}", 0..3)) {
            let pairs: Vec<_> = hosts.iter().map(|host| ("host", host.as_str())).collect();
            match check(&request("GET", "/", &pairs), &HTTP1, &LIMITS) {
                Ok(authority) => prop_assert!(hosts == [authority] && host::is_valid(authority)),
                Err(reject) => prop_assert_eq!(reject.status, StatusCode::BAD_REQUEST),
            }
        }
    }
}
