//! Makes a request fit the protocol it is sent with: where the authority stands, what the target looks like.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};

/// Puts a request into the form HTTP/1.1 wants: the authority in `Host`, the target in origin form.
/// `CONNECT` keeps the authority as its target.
pub fn for_http1<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    let Some(authority) = request.uri().authority() else { return };
    if !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if request.method() != Method::CONNECT {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
}

/// Puts a request into the form HTTP/2 wants: scheme and authority in the target, no `Host`.
/// A target without a scheme gets `scheme`. An authority that cannot stand in a target stays in `Host`.
pub fn for_http2<B>(request: &mut Request<B>, scheme: Scheme) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    if request.uri().authority().is_some()
        && (request.uri().scheme().is_some() || request.method() == Method::CONNECT)
    {
        return;
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = host
        && parts.authority.is_none()
    {
        match Authority::try_from(host.as_bytes()) {
            Ok(authority) => parts.authority = Some(authority),
            Err(_) => drop(request.headers_mut().insert(HOST, host)),
        }
    }
    if parts.authority.is_none() {
        // As if it came over HTTP/1.1: of HTTP/2's own an authority would be demanded.
        *request.version_mut() = Version::HTTP_11;
    }
    // The type knows no target with a scheme and a path but no authority.
    parts.scheme = parts.authority.is_some().then_some(parts.scheme.unwrap_or(scheme));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, host: Option<&str>) -> Request<()> {
        let builder = Request::builder().method(method).uri(uri);
        let builder = host.into_iter().fold(builder, |b, host| b.header(HOST, host));
        builder.body(()).unwrap()
    }

    #[test]
    fn http1_has_its_authority_in_host() {
        let mut absolute = request("GET", "http://shop.example:81/cart?id=1", None);
        for_http1(&mut absolute);
        assert_eq!(absolute.uri(), "/cart?id=1");
        assert_eq!(absolute.headers()[HOST], "shop.example:81");
        assert_eq!(absolute.version(), Version::HTTP_11);

        let mut origin = request("OPTIONS", "*", Some("shop.example"));
        for_http1(&mut origin);
        assert_eq!(origin.uri(), "*");

        let mut connect = request("CONNECT", "shop.example:443", None);
        for_http1(&mut connect);
        assert_eq!(connect.uri(), "shop.example:443");
        assert_eq!(connect.headers()[HOST], "shop.example:443");
    }

    #[test]
    fn http2_has_its_authority_in_the_target() {
        let mut origin = request("GET", "/cart?id=1", Some("shop.example:81"));
        for_http2(&mut origin, Scheme::HTTPS);
        assert_eq!(origin.uri(), "https://shop.example:81/cart?id=1");
        assert!(!origin.headers().contains_key(HOST));

        let mut absolute = request("GET", "http://shop.example/", Some("other.example"));
        for_http2(&mut absolute, Scheme::HTTPS);
        assert_eq!(absolute.uri(), "http://shop.example/", "the scheme is the client's");
    }

    #[test]
    fn http2_connect_has_an_authority_alone() {
        let mut connect = request("CONNECT", "shop.example:443", Some("shop.example:443"));
        for_http2(&mut connect, Scheme::HTTPS);
        assert_eq!(connect.uri(), "shop.example:443");
    }

    #[test]
    fn a_request_without_any_authority_still_has_its_path() {
        let mut origin = request("GET", "/cart", None);
        for_http2(&mut origin, Scheme::HTTP);
        assert_eq!(origin.uri(), "/cart");

        let mut odd = request("GET", "/cart", Some("outbound|80||shop"));
        for_http2(&mut odd, Scheme::HTTP);
        assert_eq!(
            (odd.uri().path(), &odd.headers()[HOST]),
            ("/cart", &"outbound|80||shop".parse().unwrap())
        );
    }
}
