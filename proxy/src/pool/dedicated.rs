//! A connection to an endpoint that serves one client from its beginning to its end, as for TCP.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::circuit_breaker::ConnectionPermit;
use super::load::Active;
use super::open::Offer;
use super::waiting::Wait;
use super::wire::Account;
use super::{Common, HostPool};
use crate::config::route::Priority;
use crate::tls::peer::PeerInfo;
use crate::upstream::client::Client;
use crate::upstream::failure::{ConnectError, Limit};
use crate::upstream::{Dialed, Stream};

/// A connection in nobody's pool.
#[derive(Debug)]
pub struct Dedicated {
    /// Its bytes, to be counted in `usage`.
    pub stream: Stream,
    /// Our end of it.
    pub local_address: Option<SocketAddr>,
    /// The peer's end of it, which is not the endpoint's first address if it has several.
    pub remote_address: Option<SocketAddr>,
    /// What the TLS handshake said; none for plain text.
    pub peer: Option<Rc<PeerInfo>>,
    /// `per_connection_buffer_limit_bytes` of the cluster.
    pub buffer_limit: u32,
    /// What it counts as; to be dropped with the stream.
    pub usage: Usage,
}

/// A dedicated connection in the statistics of its cluster and endpoint.
#[derive(Debug)]
pub struct Usage {
    account: Account,
    common: Rc<Common>,
    _active: Active,
}

impl HostPool {
    /// Opens a connection for `client` alone. `permit` counts it in the circuit breaker.
    ///
    /// # Errors
    /// When too many clients wait for connections, or none can be made.
    pub async fn dedicate(
        &self,
        permit: ConnectionPermit,
        client: &Client,
    ) -> Result<Dedicated, ConnectError> {
        let common = &self.common;
        let active = Active::enter(common);
        let Some(_pending) = common.breaker(Priority::Default).try_pending() else {
            common.stats.upstream_rq_pending_overflow.inc();
            return Err(ConnectError::Overflow(Limit::PendingRequests));
        };
        let wait = Wait::begin(common);
        let (stats, counts) = (Arc::clone(&common.stats), Arc::clone(&common.counts));
        let account = Account::open(stats, counts, Some(permit));
        let settings = Rc::clone(&self.latest.borrow().settings);
        let result = settings.dial(None, client, Offer::Unless(&[]), common).await;
        wait.end();
        let Dialed { stream, observer: _, local_address, remote_address, peer } = match result {
            Ok(dialed) => dialed,
            Err(error) => {
                common.stats.upstream_rq_pending_failure_eject.inc();
                account.failed(&error);
                return Err(error);
            }
        };
        account.made();
        Ok(Dedicated {
            stream,
            local_address,
            remote_address,
            peer: peer.map(Rc::new),
            buffer_limit: settings.cluster.buffer_limit,
            usage: Usage::begin(account, Rc::clone(common), active),
        })
    }
}

impl Usage {
    fn begin(account: Account, common: Rc<Common>, active: Active) -> Self {
        account.wire().begin();
        common.stats.upstream_rq_total.inc();
        common.stats.upstream_rq_active.inc();
        common.counts.rq_total.inc();
        common.counts.rq_active.inc();
        Self { account, common, _active: active }
    }

    /// Counts bytes sent to the endpoint.
    pub fn sent(&self, bytes: u64) {
        self.common.stats.upstream_cx_tx_bytes_total.add(bytes);
    }

    /// Counts bytes received from the endpoint.
    pub fn received(&self, bytes: u64) {
        self.common.stats.upstream_cx_rx_bytes_total.add(bytes);
    }

    /// Notes that it was the endpoint that ended the connection.
    pub fn ended_by_peer(&self) {
        self.account.note_ended_by_peer();
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.common.stats.upstream_rq_active.dec();
        self.common.counts.rq_active.dec();
    }
}
