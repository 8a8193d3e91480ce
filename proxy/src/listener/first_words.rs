//! Who speaks first, client or server: what connections to a destination have shown, so that the next one need
//! not find out again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long an observation holds: an address may be given to another service.
const LASTS: Duration = Duration::from_secs(600);
/// How many destinations are remembered on each socket of a worker.
const MOST: usize = 1024;

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    /// It sends something that leads elsewhere than silence does.
    Client,
    /// It sends something before the client does.
    Server,
}

/// What was observed lately.
#[derive(Debug, Default)]
pub(super) struct FirstWords(HashMap<SocketAddr, (Speaker, Instant)>);

impl FirstWords {
    /// Who speaks first on connections to `destination`; none if that is not known.
    pub(super) fn of(&self, destination: SocketAddr, now: Instant) -> Option<Speaker> {
        let (speaker, since) = self.0.get(&destination)?;
        (now.saturating_duration_since(*since) < LASTS).then_some(*speaker)
    }

    /// Notes who did. A server that has spoken first may do so again, whatever other clients do. Where too many are remembered, those are forgotten that no longer hold; if that is not
    /// enough, this one is.
    pub(super) fn note(&mut self, destination: SocketAddr, speaker: Speaker, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&destination) {
            self.0.retain(|_, (_, since)| now.saturating_duration_since(*since) < LASTS);
            if self.0.len() >= MOST {
                return;
            }
        }
        if speaker == Speaker::Server || self.of(destination, now) != Some(Speaker::Server) {
            self.0.insert(destination, (speaker, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn an_observation_holds_for_a_while() {
        let start = Instant::now();
        let mut words = FirstWords::default();
        assert_eq!(words.of(destination(1), start), None);
        words.note(destination(1), Speaker::Server, start);
        assert_eq!(words.of(destination(1), start), Some(Speaker::Server));
        assert_eq!(words.of(destination(2), start), None);
        assert_eq!(words.of(destination(1), start + LASTS), None);
        words.note(destination(1), Speaker::Client, start + LASTS);
        assert_eq!(words.of(destination(1), start + LASTS), Some(Speaker::Client));
    }

    #[test]
    fn a_client_does_not_make_a_server_forgotten() {
        let start = Instant::now();
        let mut words = FirstWords::default();
        for speaker in [Speaker::Client, Speaker::Server, Speaker::Client] {
            words.note(destination(1), speaker, start);
        }
        assert_eq!(words.of(destination(1), start), Some(Speaker::Server));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let start = Instant::now();
        let mut words = FirstWords::default();
        let most = u16::try_from(MOST).unwrap();
        for port in 0..most {
            words.note(destination(port), Speaker::Server, start);
        }
        words.note(destination(most), Speaker::Server, start);
        assert_eq!(words.of(destination(most), start), None);
        words.note(destination(most), Speaker::Server, start + LASTS);
        assert_eq!(words.of(destination(most), start + LASTS), Some(Speaker::Server));
        assert_eq!(words.0.len(), 1);
    }
}
