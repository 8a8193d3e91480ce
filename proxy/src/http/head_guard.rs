//! What the HTTP/1 codec would let through silently: heads that two readers may understand differently.
//!
//! The codec drops a `content-length` beside a `transfer-encoding`, and a fragment in the target, before
//! anyone can object. This looks at the bytes of each head as they pass. It never decides where a message
//! ends, so it cannot disagree with the codec; what it finds is refused with the request it stands in.

use http::StatusCode;

use super::protocol::Reject;

/// Longest head kept while it arrives in pieces: the codec refuses longer ones by itself.
const LIMIT: usize = 128 * 1024;

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Offence {
    /// Both `content-length` and `transfer-encoding` (RFC 9112, section 6.1).
    TwoFramings = 1,
    /// A `#` in the request target (RFC 9112, section 3.2).
    Fragment = 2,
}

impl Offence {
    /// The offence with this number; none for 0, which stands for none.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::TwoFramings),
            2 => Some(Self::Fragment),
            _ => None,
        }
    }

    /// The answer.
    pub fn reject(self) -> Reject {
        let details = match self {
            Self::TwoFramings => "http1.content_length_and_chunked_not_allowed",
            Self::Fragment => super::path::NORMALIZATION_FAILED,
        };
        Reject { status: StatusCode::BAD_REQUEST, details, protocol_error: true }
    }
}

/// Collects one head as it arrives.
#[derive(Debug, Default)]
pub struct HeadGuard {
    partial: Vec<u8>,
    complete: bool,
}

impl HeadGuard {
    /// Waits for the next head.
    pub fn restart(&mut self) {
        self.partial.clear();
        self.complete = false;
    }

    /// Looks at bytes that just arrived.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Offence> {
        if self.complete {
            return None;
        }
        if self.partial.is_empty()
            && let Some(end) = end_of_head(bytes)
        {
            self.complete = true;
            return inspect(bytes.get(..end)?);
        }
        self.partial.extend_from_slice(bytes);
        if let Some(end) = end_of_head(&self.partial) {
            self.complete = true;
            let head = std::mem::take(&mut self.partial);
            return inspect(head.get(..end)?);
        }
        self.complete = self.partial.len() > LIMIT;
        None
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}

fn inspect(head: &[u8]) -> Option<Offence> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let fragment = lines.next()?.contains(&b'#').then_some(Offence::Fragment);
    let (mut length, mut coding) = (false, false);
    for line in lines {
        // Two first letters decide about nearly every header.
        match line.first() {
            Some(b'c' | b'C') => length |= names(line, b"content-length"),
            Some(b't' | b'T') => coding |= names(line, b"transfer-encoding"),
            _ => {}
        }
    }
    // The worse one: a fragment may be forgiven.
    (length && coding).then_some(Offence::TwoFramings).or(fragment)
}

fn names(line: &[u8], name: &[u8]) -> bool {
    let is_name = line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    is_name && line.get(name.len()) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTRANSFER-encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn an_offence_is_found_however_the_head_is_cut() {
        for cut in 0..BOTH.len() {
            let (first, second) = BOTH.split_at(cut);
            let mut guard = HeadGuard::default();
            let found = guard.feed(first).or_else(|| guard.feed(second));
            assert_eq!(found, Some(Offence::TwoFramings), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_is_not_read_as_a_head() {
        let mut guard = HeadGuard::default();
        assert_eq!(guard.feed(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"), None);
        assert_eq!(
            guard.feed(b"\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
            None
        );
        guard.restart();
        assert_eq!(guard.feed(b"GET /a#b HTTP/1.1\r\n\r\n"), Some(Offence::Fragment));
        guard.restart();
        let both = b"POST /a#b HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(guard.feed(both), Some(Offence::TwoFramings), "a fragment hides nothing");
    }

    #[test]
    fn ordinary_heads_pass() {
        let mut guard = HeadGuard::default();
        let head = b"GET /?content-length:transfer-encoding: HTTP/1.1\r\nte: trailers\r\ncontent-lengthy: 1\r\n\r\n";
        assert_eq!(guard.feed(head), None);
    }
}
