//! Makes the connections of a pool: a task dials, another drives what came of it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::circuit_breaker::ConnectionPermit;
use super::connection::{Connection, Facts};
use super::connections::Connections;
use super::wire::{Account, Io};
use super::{Common, Settings};
use crate::upstream::client::Client;
use crate::upstream::failure::ConnectError;
use crate::upstream::http::{self, Driver, Protocol};
use crate::upstream::{Dialed, Security, Target, dial};

const HTTP1: &[&str] = &["http/1.1"];
const HTTP2: &[&str] = &["h2"];
const EITHER: &[&str] = &["h2", "http/1.1"];

/// What to offer by ALPN.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offer<'a> {
    /// These protocols, unless the configuration has its own.
    Unless(&'a [&'a str]),
    /// These protocols.
    Only(&'a [&'a str]),
}

impl Connections {
    /// Begins to make one connection. It is finished even if the request that wanted it gives up.
    pub(super) fn open(self: &Rc<Self>, permit: Option<ConnectionPermit>) {
        self.connecting.set(self.connecting.get() + 1);
        let connections = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let result = connections.connect(permit).await;
            connections.connecting.set(connections.connecting.get() - 1);
            match result {
                Ok(connection) => connections.add(Rc::new(connection)),
                Err(error) => connections.connect_failed(&error),
            }
        });
    }

    async fn connect(
        self: &Rc<Self>,
        permit: Option<ConnectionPermit>,
    ) -> Result<Connection, ConnectError> {
        let common = &self.common;
        let account = Account::open(Arc::clone(&common.stats), Arc::clone(&common.counts), permit);
        let offer = match self.key.protocol {
            Some(Protocol::Http1) => HTTP1,
            Some(Protocol::Http2) => HTTP2,
            None => EITHER,
        };
        let host = self.key.host.as_deref();
        let alpn: Option<Vec<&str>> =
            self.key.alpn.as_ref().map(|alpn| alpn.iter().map(AsRef::as_ref).collect());
        let alpn = match &alpn {
            Some(alpn) => Offer::Only(alpn),
            None => Offer::Unless(offer),
        };
        let count = |protocol| match protocol {
            Protocol::Http1 => common.stats.upstream_cx_http1_total.inc(),
            Protocol::Http2 => common.stats.upstream_cx_http2_total.inc(),
        };
        self.key.protocol.into_iter().for_each(count);
        let dialed = match self.settings.dial(host, &self.key.client, alpn, common).await {
            Ok(dialed) => dialed,
            Err(error) => {
                account.failed(&error);
                return Err(error);
            }
        };
        let protocol = self.key.protocol.unwrap_or_else(|| negotiated(&dialed));
        if self.key.protocol.is_none() {
            count(protocol);
        }
        let Dialed { stream, observer, local_address, remote_address, peer } = dialed;
        let opened = account.opened();
        let wire = Arc::clone(account.wire());
        let io = account.connected(stream);
        let (sender, driver) = http::handshake(io, protocol, &self.settings.cluster)
            .await
            .map_err(|error| ConnectError::Http(error.to_string()))?;
        let facts = Rc::new(Facts {
            protocol,
            wire,
            observer,
            local_address,
            remote_address,
            peer: peer.map(Rc::new),
            opened,
            idle_since: Cell::new(Instant::now()),
            told_idle: Cell::new(None),
            peer_streams: Cell::new(u32::MAX),
            retired: Cell::new(false),
        });
        self.drive(driver, Rc::clone(&facts));
        let connection = Connection { sender: RefCell::new(sender), facts };
        // A peer that closes at once has refused the connection: to try again would only spin.
        let ready = poll_fn(|context| connection.sender.borrow_mut().poll_ready(context)).await;
        ready.then_some(connection).ok_or_else(|| ConnectError::Http("closed at once".to_owned()))
    }

    /// Runs the codec until the connection takes no more requests, then tells the pool.
    fn drive(self: &Rc<Self>, driver: Driver<Io>, facts: Rc<Facts>) {
        let connections = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let allow = |streams| {
                facts.peer_streams.set(u32::try_from(streams).unwrap_or(u32::MAX));
            };
            if let Err(error) = http::drive(driver, allow).await {
                tracing::debug!(%error, "upstream connection ended");
            }
            if let Some(connections) = connections.upgrade() {
                connections.ended(&facts);
            }
        });
    }
}

impl Settings {
    /// Connects for requests to `host`.
    pub(super) async fn dial(
        &self,
        host: Option<&str>,
        client: &Client,
        offer: Offer<'_>,
        common: &Common,
    ) -> Result<Dialed, ConnectError> {
        let Self { address, additional_addresses, tls, cluster, .. } = self;
        let configured: Vec<&str> = tls.iter().flat_map(|tls| tls.alpn()).collect();
        let security = tls.as_ref().map(|tls| Security {
            client: &tls.client,
            server_name: self.server_name(host),
            certified_name: host.filter(|_| cluster.http.auto_san_validation),
            alpn: match offer {
                Offer::Unless(offer) if configured.is_empty() => offer,
                Offer::Unless(_) => &configured,
                Offer::Only(offer) => offer,
            },
        });
        let target = Target {
            address,
            additional_addresses,
            connecting: &cluster.connecting,
            connect_timeout: cluster.connect_timeout,
            client,
            tls: security,
        };
        let stats = &common.stats;
        // As in Envoy, every further address tried is a connection of its own here, though never an active one.
        let again = || {
            stats.upstream_cx_total.inc();
            common.counts.cx_total.inc();
        };
        let result = dial(target, again).await;
        match &result {
            Ok(_) if tls.is_some() => stats.ssl_handshake.inc(),
            Err(ConnectError::Tls(_)) => stats.ssl_connection_error.inc(),
            Err(ConnectError::Bind(_)) => stats.bind_errors.inc(),
            Err(ConnectError::Certificate(_)) => stats.ssl_fail_verify_error.inc(),
            _ => {}
        }
        result
    }
}

/// The protocol ALPN has chosen; HTTP/1.1 if it has not.
fn negotiated(dialed: &Dialed) -> Protocol {
    match dialed.peer.as_ref().and_then(|peer| peer.alpn()) {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}
