//! Session tickets that end at a configured age (Envoy `session_timeout`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::server::ProducesTickets;

/// Tickets of the library's making, with the time they were made inside.
///
/// The library's keys are made anew every six hours and live for twelve, which limits longer timeouts.
#[derive(Debug)]
pub(super) struct AgedTickets {
    tickets: Arc<dyn ProducesTickets>,
    timeout: Duration,
}

impl AgedTickets {
    /// Tickets that are honoured for `timeout`.
    pub(super) fn new(timeout: Duration) -> Result<Self, rustls::Error> {
        Ok(Self { tickets: rustls::crypto::aws_lc_rs::Ticketer::new()?, timeout })
    }
}

impl ProducesTickets for AgedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let timeout = u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX);
        timeout.min(self.tickets.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let stamped = [&seconds_now().to_be_bytes()[..], plain].concat();
        self.tickets.encrypt(&stamped)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let stamped = self.tickets.decrypt(cipher)?;
        let (made, plain) = stamped.split_first_chunk()?;
        let age = seconds_now().checked_sub(u64::from_be_bytes(*made))?;
        (age < self.timeout.as_secs()).then(|| plain.to_vec())
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_honoured_until_its_timeout() {
        let tickets = AgedTickets::new(Duration::from_secs(60)).unwrap();
        assert_eq!(tickets.lifetime(), 60);
        let ticket = tickets.encrypt(b"state").unwrap();
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"state");
        assert_eq!(tickets.decrypt(b"forged"), None);
    }

    #[test]
    fn a_timeout_of_zero_honours_none() {
        let tickets = AgedTickets::new(Duration::ZERO).unwrap();
        let ticket = tickets.encrypt(b"state").unwrap();
        assert_eq!(tickets.decrypt(&ticket), None);
    }
}
