//! Closes connections whose time has come: `idle_timeout` and `max_connection_duration`.

use std::rc::{Rc, Weak};

use tokio::time::Instant;

use super::connection::{Connection, Expiry, Facts};
use super::connections::Connections;

impl Connections {
    /// Closes `connection` if its time has come.
    pub(super) fn close_if_expired(&self, connection: &Connection, now: Instant) -> bool {
        match connection.facts.expires(&self.settings) {
            Some((at, expiry)) if at <= now => {
                self.expire(&connection.facts, expiry);
                true
            }
            _ => false,
        }
    }

    fn expire(&self, facts: &Facts, expiry: Expiry) {
        if self.retire(facts) {
            match expiry {
                Expiry::Idle => self.common.stats.upstream_cx_idle_timeout.inc(),
                Expiry::Age => self.common.stats.upstream_cx_max_duration_reached.inc(),
            }
        }
    }

    /// Closes what has expired; returns when the next one will, if there is one.
    fn close_expired(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut expired = Vec::new();
        for list in [&self.idle, &self.shared] {
            list.borrow_mut().retain(|connection| match connection.facts.expires(&self.settings) {
                Some((at, expiry)) if at <= now => {
                    expired.push((Rc::clone(connection), expiry));
                    false
                }
                Some((at, _)) => {
                    next = Some(next.map_or(at, |earliest| earliest.min(at)));
                    true
                }
                None => true,
            });
        }
        for (connection, expiry) in expired {
            self.expire(&connection.facts, expiry);
        }
        next
    }

    /// Sees to it that idle connections expire. One task sleeps until the next one does; nothing is done
    /// per request.
    pub(super) fn start_reaper(self: &Rc<Self>) {
        let http = &self.settings.cluster.http;
        let mut reaper = self.reaper.borrow_mut();
        let running = reaper.as_ref().is_some_and(|reaper| !reaper.is_finished());
        if !running && (http.idle_timeout.is_some() || http.max_connection_duration.is_some()) {
            let task = tokio::task::spawn_local(reap(Rc::downgrade(self)));
            *reaper = Some(task.abort_handle());
        }
    }
}

async fn reap(connections: Weak<Connections>) {
    loop {
        let next = match connections.upgrade() {
            Some(connections) => connections.close_expired(Instant::now()),
            None => None,
        };
        let Some(next) = next else { return };
        tokio::time::sleep_until(next).await;
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
    }
}
