//! A response read to its end, and the echo of the request that the backends put into it.

use bytes::Bytes;
use http::{HeaderMap, Version};
use serde_json::Value;

/// A complete response.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Protocol it came over.
    pub version: Version,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Trailer fields; empty if there were none.
    pub trailers: HeaderMap,
}

impl Reply {
    /// The value of header `name`, several joined by `,`; none if it is absent.
    pub fn header(&self, name: &str) -> Option<String> {
        joined(&self.headers, name)
    }

    /// The value of trailer `name`; none if it is absent.
    pub fn trailer(&self, name: &str) -> Option<String> {
        joined(&self.trailers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("body is no JSON ({error}): {}", self.text()))
    }

    /// What the echoing backend received.
    pub fn echo(&self) -> Echo {
        assert_eq!(self.status, 200, "no echo but: {}", self.text());
        Echo { value: self.json() }
    }
}

fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|v| text_of(v.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The request as the backend saw it.
#[derive(Debug, Clone)]
pub struct Echo {
    value: Value,
}

impl Echo {
    /// Name of the backend that answered.
    pub fn backend(&self) -> &str {
        self.text("backend")
    }

    /// The request's method.
    pub fn method(&self) -> &str {
        self.text("method")
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        self.text("path")
    }

    /// `Host` header or `:authority`.
    pub fn host(&self) -> &str {
        self.text("host")
    }

    /// `HTTP/1.1` or `HTTP/2.0`
    pub fn version(&self) -> &str {
        self.text("version")
    }

    /// The request's body.
    pub fn body(&self) -> &str {
        self.text("body")
    }

    /// The value of request header `name` in lower case, several joined by `,`; none if absent.
    pub fn header(&self, name: &str) -> Option<String> {
        self.field("headers", name)
    }

    /// The value of request trailer `name`.
    pub fn trailer(&self, name: &str) -> Option<String> {
        self.field("trailers", name)
    }

    /// Names of all request headers, in lower case.
    pub fn header_names(&self) -> Vec<&str> {
        self.pairs("headers").map(|(name, _)| name).collect()
    }

    fn text(&self, key: &str) -> &str {
        self.value[key].as_str().unwrap_or_else(|| panic!("echo lacks {key}: {}", self.value))
    }

    fn field(&self, section: &str, name: &str) -> Option<String> {
        let found = self.pairs(section).filter(|(key, _)| *key == name);
        let values: Vec<_> = found.map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    fn pairs(&self, section: &str) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.value[section].as_array().map(Vec::as_slice).unwrap_or_default();
        pairs.iter().filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
    }
}
