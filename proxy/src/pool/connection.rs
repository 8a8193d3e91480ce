//! One connection in a pool: how to send on it, and what is known about it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use super::wire::Wire;
use crate::tls::peer::PeerInfo;
use crate::upstream::http::{Protocol, Sender};
use crate::upstream::socket::Observer;

/// One connection. Dropping the last handle on it closes it: at once for HTTP/1, after the streams under way
/// for HTTP/2.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: RefCell<Sender>,
    pub(super) facts: Rc<Facts>,
}

/// What is known about a connection.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) protocol: Protocol,
    pub(super) wire: Arc<Wire>,
    pub(super) observer: Observer,
    pub(super) local_address: Option<SocketAddr>,
    pub(super) remote_address: Option<SocketAddr>,
    pub(super) peer: Option<Rc<PeerInfo>>,
    pub(super) opened: Instant,
    /// Since when nothing is under way on it; meaningful while nothing is.
    pub(super) idle_since: Cell<Instant>,
    /// The idle time its server stated.
    pub(super) told_idle: Cell<Option<Duration>>,
    /// Concurrent requests its peer allows.
    pub(super) peer_streams: Cell<u32>,
    /// It takes no more requests.
    pub(super) retired: Cell<bool>,
}

/// Why an open connection takes no more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// `idle_timeout`
    Idle,
    /// `max_connection_duration`
    Age,
}

impl Connection {
    /// Whether another request can be sent on it now.
    pub(super) fn has_room(&self, settings: &Settings) -> bool {
        let streams = self.facts.wire.streams();
        !self.facts.retired.get()
            && self.sender.borrow().is_ready()
            && match self.facts.protocol {
                Protocol::Http1 => streams == 0,
                Protocol::Http2 => {
                    let own = settings.cluster.http.http2.max_concurrent_streams;
                    streams < own.min(self.facts.peer_streams.get()).max(1)
                }
            }
    }
}

impl Facts {
    /// Whether nothing is under way on it.
    pub(super) fn is_idle(&self) -> bool {
        self.wire.streams() == 0
    }

    /// When it expires if nothing happens, and why; none if never.
    pub(super) fn expires(&self, settings: &Settings) -> Option<(Instant, Expiry)> {
        let http = &settings.cluster.http;
        let idle = http.idle_timeout.filter(|_| self.is_idle());
        let idle = idle.map(|limit| (self.idle_since.get() + limit, Expiry::Idle));
        let age = http.max_connection_duration.map(|limit| (self.opened + limit, Expiry::Age));
        match (idle, age) {
            (Some(idle), Some(age)) => Some(if idle.0 < age.0 { idle } else { age }),
            (idle, age) => idle.or(age),
        }
    }

    /// Whether it has carried as many requests as it may.
    pub(super) fn is_exhausted(&self, settings: &Settings) -> bool {
        let limit = settings.cluster.http.max_requests_per_connection;
        limit != 0 && self.wire.requests() >= limit
    }
}
