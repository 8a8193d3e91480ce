//! The request that is asked about, as the command line spells it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// A request that somebody might send.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Whether it comes over TLS.
    pub(super) is_tls: bool,
    /// The Host header, or else host and port of the URL.
    pub(super) authority: String,
    /// The URL's host, without brackets: the server name.
    pub(super) host: String,
    /// The URL's port, or the scheme's.
    pub(super) port: u16,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// Who asks.
    pub(super) source: SocketAddr,
}

impl Asked {
    /// Reads what was given: a method, a URL, headers as `name: value`, the client's address.
    ///
    /// # Errors
    /// What is no method, no http or https URL, no header, or no address.
    pub(super) fn new(method: &str, url: &str, headers: &[String], from: &str) -> Result<Self> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| anyhow!("{method:?} is no HTTP method; the order is METHOD URL"))?;
        let uri: Uri = url.parse().with_context(|| {
            format!("{url:?} is no URL; it must begin with http:// or https://")
        })?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(anyhow!("{url:?} must begin with http:// or https://")),
        };
        let host = uri.host().unwrap_or_default();
        let mut asked = Self {
            method,
            is_tls,
            authority: uri.authority().map_or("", |it| it.as_str()).to_owned(),
            host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            target: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            headers: HeaderMap::new(),
            source: source(from)?,
        };
        for text in headers {
            asked.add(text)?;
        }
        Ok(asked)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let wrong = || format!("{text:?} is no header; write -H 'name: value'");
        let (name, value) = text.split_once(':').with_context(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).with_context(wrong)?;
        let value = HeaderValue::from_str(value.trim()).with_context(wrong)?;
        if name == http::header::HOST {
            value.to_str().with_context(wrong)?.clone_into(&mut self.authority);
        } else {
            self.headers.append(name, value);
        }
        Ok(())
    }

    /// The server name a TLS client would send; none for an address.
    pub(super) fn server_name(&self) -> Option<&str> {
        (self.is_tls && self.host.parse::<IpAddr>().is_err()).then_some(&self.host)
    }
}

fn source(text: &str) -> Result<SocketAddr> {
    if text.is_empty() {
        return Ok((Ipv4Addr::LOCALHOST, 40000).into());
    }
    let address = text.parse().ok();
    let with_port = || Some(SocketAddr::new(text.parse().ok()?, 40000));
    address.or_else(with_port).with_context(|| format!("--from {text:?} is no IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_and_headers_make_a_request() {
        let headers = ["x-a: 1".to_owned(), "Host:shop.example".to_owned()];
        let asked = Asked::new("GET", "https://[::1]:8443/a?b", &headers, "10.1.2.3").unwrap();
        assert_eq!((asked.port, &*asked.target, asked.is_tls), (8443, "/a?b", true));
        assert_eq!((&*asked.authority, &*asked.host), ("shop.example", "::1"));
        assert_eq!(asked.server_name(), None);
        assert_eq!(asked.headers["x-a"], "1");
        assert_eq!(asked.source, "10.1.2.3:40000".parse().unwrap());
        let plain = Asked::new("GET", "http://Shop.example", &[], "").unwrap();
        assert_eq!((plain.port, &*plain.target, &*plain.host), (80, "/", "shop.example"));
        assert_eq!(Asked::new("GET", "https://a", &[], "").unwrap().server_name(), Some("a"));
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for (method, url, header, from, message) in [
            ("https://a", "GET", "", "", "the order is METHOD URL"),
            ("GET", "a.example/x", "", "", "must begin with http"),
            ("GET", "http://a", "novalue", "", "-H 'name: value'"),
            ("GET", "http://a", "", "localhost", "is no IP address"),
        ] {
            let headers: Vec<String> =
                (!header.is_empty()).then(|| header.to_owned()).into_iter().collect();
            let error = format!("{:#}", Asked::new(method, url, &headers, from).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }
}
