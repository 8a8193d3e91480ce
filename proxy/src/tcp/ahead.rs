//! An endpoint reached before it is known whether the connection is its own: it may speak first.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Session;
use super::line::Line;
use crate::cluster::Watch;
use crate::drain::connections::Membership;
use crate::http::connection::Downstream;
use crate::net::copy::{Broken, Meter, Side};
use crate::pool::Usage;
use crate::snapshot::FilterChain;
use crate::worker::Held;

/// The most that is read of what an endpoint says first, in bytes; the rest is carried like everything else.
const GREETING: usize = 4 * 1024;

/// What a session has before it begins.
#[derive(Debug, Default)]
pub(super) struct Ahead(RefCell<Dialed>);

#[derive(Debug, Default)]
enum Dialed {
    /// Nobody has tried, or not to the end.
    #[default]
    No,
    /// An endpoint; none if there is none to be had.
    Yes(Option<Box<Reached>>),
    /// An endpoint that has ended since.
    Lost,
}

/// An endpoint that is reached, and what it has said.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) line: Line,
    /// What is counted of its connection; none if a pool counts it.
    pub(super) usage: Option<Usage>,
    /// `per_connection_buffer_limit_bytes` of the cluster.
    pub(super) buffer_limit: u32,
    /// The host whose failure ends the connection, if it does.
    pub(super) depends_on: Option<Watch>,
    pub(super) greeting: Vec<u8>,
}

/// Resolves when a connection has to end because the host it depends on is no longer healthy.
pub(super) async fn host_fails(depends_on: Option<Watch>) {
    match depends_on {
        Some(host) => host.failure().await,
        None => std::future::pending().await,
    }
}

impl Ahead {
    /// Takes out what was reached; the outer none is nothing tried.
    pub(super) fn take(&self) -> Option<Option<Reached>> {
        match self.0.take() {
            Dialed::No | Dialed::Lost => None,
            Dialed::Yes(reached) => Some(reached.map(|reached| *reached)),
        }
    }
}

impl Session {
    /// Reaches the endpoint ahead of [`Session::serve`], if it can be reached.
    pub async fn dial(&self, snapshot: &Held) {
        let reached = self.reach(snapshot).await;
        self.ahead.0.replace(Dialed::Yes(reached.map(Box::new)));
    }

    /// Resolves once the endpoint that was reached has said something. One that could not be reached, or ends
    /// without a word, is not missed: then this never resolves.
    pub async fn hear(&self) {
        let mut room = vec![0; GREETING];
        std::future::poll_fn(|cx| {
            let mut ahead = self.ahead.0.borrow_mut();
            let Dialed::Yes(Some(reached)) = &mut *ahead else { return Poll::Pending };
            let mut buffer = ReadBuf::new(&mut room);
            let read = Pin::new(&mut reached.line).poll_read(cx, &mut buffer);
            match read {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    reached.greeting.extend_from_slice(buffer.filled());
                    Poll::Ready(())
                }
                Poll::Ready(_) => {
                    *ahead = Dialed::Lost;
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }

    /// Whether [`Session::dial`] has come to its end.
    pub fn has_dialed(&self) -> bool {
        !matches!(&*self.ahead.0.borrow(), Dialed::No)
    }

    /// Takes over what has become known of the connection since the session began ahead of it.
    pub fn adopt(&mut self, downstream: Downstream, membership: Membership) {
        self.downstream = downstream;
        self.membership = membership;
    }

    /// The chain it belongs to.
    pub fn chain(&self) -> &Arc<FilterChain> {
        &self.chain
    }
}

/// Tells the client what the endpoint has said before the session began.
pub(super) async fn greet(
    client: &mut (impl AsyncWrite + Unpin),
    greeting: &[u8],
    meter: &impl Meter,
) -> Result<(), Broken> {
    if greeting.is_empty() {
        return Ok(());
    }
    meter.read(Side::Upstream, greeting.len());
    let broken = |error: io::Error| Broken { side: Side::Downstream, error };
    client.write_all(greeting).await.map_err(broken)?;
    client.flush().await.map_err(broken)?;
    meter.wrote(Side::Downstream, greeting.len());
    Ok(())
}
