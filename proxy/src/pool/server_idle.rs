//! How long a server keeps an idle connection open, learned from what it says and does.
//!
//! A request that must not be sent twice is not entrusted to a connection the server may be closing at this
//! moment. A server says its idle time in `Keep-Alive: timeout=`, or shows it by closing.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

/// A close sooner than this is a server that closes after some number of requests, not after some time.
const SHORTEST: Duration = Duration::from_millis(200);

/// What is known about one server. Pure: durations in, durations out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ServerIdle(Option<Duration>);

impl ServerIdle {
    /// The server has closed a connection that was idle for `idle`.
    pub(super) fn observe_close(&mut self, idle: Duration) {
        if idle >= SHORTEST {
            self.0 = Some(self.0.map_or(idle, |known| known.min(idle)));
        }
    }

    /// A connection is still open after having been idle for `idle`: what was known may no longer hold.
    pub(super) fn observe_open(&mut self, idle: Duration) {
        if self.0.is_some_and(|known| idle > known * 5 / 4) {
            self.0 = None;
        }
    }

    /// How long an idle connection can be trusted, given what the server has `told` on it; none is no limit.
    pub(super) fn trusted(self, told: Option<Duration>) -> Option<Duration> {
        let shortest = match (self.0, told) {
            (Some(seen), Some(told)) => seen.min(told),
            (seen, told) => seen.or(told)?,
        };
        Some(shortest * 4 / 5)
    }
}

/// The idle time a response states in `Keep-Alive: timeout=SECONDS`.
pub(super) fn told(headers: &HeaderMap) -> Option<Duration> {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn trust_ends_before_the_server_closes() {
        let mut server = ServerIdle::default();
        assert_eq!(server.trusted(None), None);
        server.observe_close(10 * SECOND);
        assert_eq!(server.trusted(None), Some(8 * SECOND));
        server.observe_close(5 * SECOND);
        server.observe_close(7 * SECOND);
        assert_eq!(server.trusted(None), Some(4 * SECOND), "the shortest counts");
        assert_eq!(server.trusted(Some(2 * SECOND)), Some(Duration::from_millis(1600)));
    }

    #[test]
    fn a_close_after_a_request_says_nothing_about_time() {
        let mut server = ServerIdle::default();
        server.observe_close(Duration::from_millis(3));
        assert_eq!(server.trusted(None), None);
    }

    #[test]
    fn what_is_disproved_is_forgotten() {
        let mut server = ServerIdle::default();
        server.observe_close(4 * SECOND);
        server.observe_open(5 * SECOND);
        assert_eq!(server.trusted(None), Some(Duration::from_millis(3200)));
        server.observe_open(6 * SECOND);
        assert_eq!(server.trusted(None), None);
    }

    #[test]
    fn the_header_is_read_leniently_and_never_trusted_to_be_a_number() {
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", value.parse().unwrap());
            headers
        };
        assert_eq!(told(&headers("timeout=5, max=100")), Some(5 * SECOND));
        assert_eq!(told(&headers("max=100, timeout=5")), Some(5 * SECOND));
        assert_eq!(told(&headers("timeout=soon")), None);
        assert_eq!(told(&headers("max=1")), None);
        assert_eq!(told(&HeaderMap::new()), None);
    }
}
