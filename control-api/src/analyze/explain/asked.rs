//! The request that is asked about.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use hyper::Uri;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) is_tls: bool,
    /// Where it goes: the URL's host.
    pub(super) host: String,
    pub(super) port: u32,
    /// With everything after `?`.
    pub(super) target: String,
    /// Names in lowercase.
    headers: Vec<(String, String)>,
}

impl Asked {
    /// A request of this method for a URL, with headers `NAME: VALUE`.
    ///
    /// # Errors
    /// It is no request.
    pub(super) fn new(method: &str, url: &str, headers: &[String]) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https" | "tls") => true,
            _ => bail!("{url:?} does not begin with http:// or https://"),
        };
        let host = uri.host().with_context(|| format!("{url:?} names no host"))?;
        let port = uri.port_u16().map_or(if is_tls { 443 } else { 80 }, u32::from);
        let mut asked = Self {
            method: method.to_ascii_uppercase(),
            is_tls,
            host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
            port,
            target: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            headers: Vec::new(),
        };
        for header in headers {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("{header:?} is no header, NAME: VALUE"))?;
            asked.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if asked.header("host").is_none() {
            let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
            asked.headers.push(("host".to_owned(), authority));
        }
        Ok(asked)
    }

    /// The path without what follows `?`.
    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// The value of a parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').map(|it| it.split_once('=').unwrap_or((it, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The host that is asked for, without port.
    pub(super) fn authority(&self) -> &str {
        let host = self.header("host").unwrap_or(&self.host);
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
            _ => host,
        }
    }

    /// The address it goes to, if the URL has one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// A header's value; `:authority`, `:method`, `:path` and `:scheme` are headers, too.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        match name {
            ":method" => Some(&self.method),
            ":path" => Some(&self.target),
            ":scheme" => Some(if self.is_tls { "https" } else { "http" }),
            ":authority" => self.header("host"),
            name => {
                let same = |it: &&(String, String)| it.0.eq_ignore_ascii_case(name);
                self.headers.iter().find(same).map(|(_, value)| value.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_host_port_and_path() {
        let asked = Asked::new("get", "http://Reviews:9080/a/b?x=1&y", &[]).unwrap();
        assert_eq!((asked.host.as_str(), asked.port, asked.is_tls), ("reviews", 9080, false));
        assert_eq!((asked.path(), asked.parameter("x")), ("/a/b", Some("1")));
        assert_eq!((asked.header(":method"), asked.authority()), (Some("GET"), "Reviews"));
        let asked = Asked::new("GET", "https://10.0.0.1", &["Host: a.com".to_owned()]).unwrap();
        assert_eq!((asked.port, asked.authority(), asked.path()), (443, "a.com", "/"));
        assert!(asked.address().is_some());
        for (url, header) in [("reviews", "a: b"), ("ftp://a/", "a: b"), ("http://a/", "none")] {
            assert!(Asked::new("GET", url, &[header.to_owned()]).is_err(), "{url} {header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_is_a_request_or_is_none(url in ".*", header in ".*") {
            let asked = Asked::new("GET", &format!("http://{url}"), &[header]);
            proptest::prop_assert!(asked.is_err() || !asked.unwrap().path().contains('?'));
        }
    }
}
