//! The TCP proxy: one connection of a client carried over one connection to an endpoint.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::cluster::PickContext;
use crate::config::listener::NetworkFilter;
use crate::config::route::Priority;
use crate::config::tcp::TcpProxy;
use crate::drain::Phase;
use crate::drain::connections::Membership;
use crate::http::connection::Downstream;
use crate::pool::Dedicated;
use crate::snapshot::FilterChain;
use crate::worker::{Held, Worker};

/// A client's connection that is to be carried on.
#[derive(Debug)]
pub struct Session {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// Its facts.
    pub downstream: Downstream,
    /// Its place among the listener's connections.
    pub membership: Membership,
    /// The configuration it began with, which it keeps.
    pub snapshot: Rc<Held>,
    /// Its chain.
    pub chain: Arc<FilterChain>,
    /// What the chain says to do with it.
    pub proxy: Arc<TcpProxy>,
}

impl Session {
    /// Carries the bytes of `client` until both sides have ended.
    ///
    /// # Errors
    /// When there is no endpoint, or either side breaks off.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, mut client: S) -> io::Result<()> {
        let mut upstream = self.connect().await?;
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut upstream.stream) => {
                let (sent, received) = copied?;
                upstream.usage.sent(sent);
                upstream.usage.received(received);
                Ok(())
            }
            () = self.cut() => Err(io::Error::other("the proxy shuts down")),
        }
    }

    async fn connect(&self) -> io::Result<Dedicated> {
        let name = self.cluster();
        let Some(spec) = self.snapshot.clusters.get(name) else {
            return Err(io::Error::other(format!("there is no cluster {name:?}")));
        };
        let cluster = self.worker.clusters.get(spec);
        let Some(permit) = cluster.breaker(Priority::Default).try_connection() else {
            cluster.stats.upstream_cx_overflow.inc();
            return Err(io::Error::other("circuit breaker: max_connections is reached"));
        };
        let dynamic = cluster.original_dst(|_| None, self.downstream.original_dst);
        let context = PickContext { dynamic: dynamic.as_ref(), ..PickContext::default() };
        let picked = self.worker.with_random(|random| cluster.pick(&context, random));
        let Some(host) = picked else {
            cluster.stats.upstream_cx_none_healthy.inc();
            return Err(io::Error::other("no healthy upstream"));
        };
        host.dedicate(permit).await.map_err(io::Error::other)
    }

    /// The cluster's name, as the filters before this one or its configuration say.
    fn cluster(&self) -> &str {
        let by_name = self.chain.config.filters.contains(&NetworkFilter::SniCluster);
        let server_name = self.downstream.server_name.as_deref().filter(|_| by_name);
        server_name.unwrap_or(&self.proxy.cluster)
    }

    /// Resolves when the connection must end now.
    async fn cut(&self) {
        let control = &self.membership.control;
        std::future::poll_fn(|cx| match control.poll_phase(cx) {
            Phase::Closing => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}
