//! The head of a request, as it came and as filters have changed it.

use std::cell::OnceCell;
use std::rc::Rc;

use http::{HeaderMap, Method, Version};

use crate::config::matcher::RequestHead;

/// A request's head as it is matched, forwarded and logged: normalised once, never changed back.
/// Only filters and redirects put another one in its place.
#[derive(Debug, Clone)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host header or `:authority`.
    pub authority: Rc<str>,
    /// Path and query.
    pub path: Rc<str>,
    /// Everything else.
    pub headers: HeaderMap,
    /// Version the client speaks.
    pub version: Version,
}

impl Head {
    /// The head as matchers see it.
    pub fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path_and_query: &self.path,
            headers: &self.headers,
        }
    }

    /// Its size in bytes: names and values, with those of pseudo headers.
    pub fn size(&self) -> u64 {
        const PSEUDO: usize =
            ":method".len() + ":scheme".len() + ":authority".len() + ":path".len();
        let Self { method, scheme, authority, path, headers, version: _ } = self;
        let pseudo = PSEUDO + method.as_str().len() + scheme.len() + authority.len() + path.len();
        pseudo as u64 + size(headers)
    }

    /// Whether this is a gRPC request, by its content type.
    pub fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }
}

/// Whether this is the content type of gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(http::header::CONTENT_TYPE) else { return false };
    let rest = kind.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The size of `headers` in bytes: names and values.
pub(super) fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}

/// The heads that a request has had. None of them goes away, so that what was found by an older one may still
/// refer to it.
#[derive(Debug, Default)]
pub struct Heads {
    first: OnceCell<Head>,
    next: OnceCell<Box<Heads>>,
}

impl Heads {
    /// The newest; none before the request was read.
    pub fn newest(&self) -> Option<&Head> {
        let mut heads = self;
        while let Some(next) = heads.next.get() {
            heads = next;
        }
        heads.first.get()
    }

    /// The first, which is the client's.
    pub fn first(&self) -> Option<&Head> {
        self.first.get()
    }

    /// Puts `head` in place of the newest one.
    pub fn put(&self, head: Head) -> &Head {
        let mut heads = self;
        while heads.first.get().is_some() {
            heads = heads.next.get_or_init(Box::default);
        }
        heads.first.get_or_init(|| head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_head_counts_and_older_ones_stay() {
        let heads = Heads::default();
        let head = |path: &str| Head {
            method: Method::GET,
            scheme: "http",
            authority: "a".into(),
            path: path.into(),
            headers: HeaderMap::new(),
            version: Version::HTTP_11,
        };
        assert!(heads.newest().is_none());
        let first = heads.put(head("/1"));
        heads.put(head("/2"));
        heads.put(head("/3"));
        assert_eq!(&*heads.newest().unwrap().path, "/3");
        assert_eq!(&*first.path, "/1");
        assert_eq!(&*heads.first().unwrap().path, "/1");
    }
}
