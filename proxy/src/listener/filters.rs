//! Listener filters: what is learned of a connection before its filter chain is chosen.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::inspector::{self, ClientHello, Inspection};
use crate::snapshot::Listener;
use crate::telemetry::metrics::ListenerStats;

/// What is known of a connection whose filter chain is not chosen yet. Listener filters add to it.
#[derive(Debug)]
pub(super) struct Seen {
    /// The address it was made to.
    pub(super) local: SocketAddr,
    /// Who made it.
    pub(super) remote: SocketAddr,
    /// The peer of the socket itself.
    pub(super) direct_remote: SocketAddr,
    /// The ClientHello it began with; none for anything but TLS, and where nobody looked.
    pub(super) hello: Option<ClientHello>,
}

impl Seen {
    /// What the socket itself says.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote, direct_remote: remote, hello: None }
    }

    /// The server name asked for.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.hello.as_ref().and_then(|hello| hello.server_name.as_deref())
    }
}

/// Runs the filters of `listener` on a connection of which `seen` is known.
///
/// # Errors
/// When a filter refuses the connection, or waits longer than `listener_filters_timeout`.
pub(super) async fn run(
    listener: &Listener,
    stream: &TcpStream,
    mut seen: Seen,
    stats: &ListenerStats,
) -> io::Result<Seen> {
    seen.hello = inspect(listener, stream, stats).await?;
    Ok(seen)
}

/// Peeks for a TLS ClientHello if the listener wants to know.
async fn inspect(
    listener: &Listener,
    stream: &TcpStream,
    stats: &ListenerStats,
) -> io::Result<Option<ClientHello>> {
    if !listener.config.tls_inspector {
        return Ok(None);
    }
    let looking = inspector::inspect(stream);
    let inspection = match listener.config.listener_filters_timeout {
        None => looking.await?,
        Some(limit) => match tokio::time::timeout(limit, looking).await {
            Ok(inspection) => inspection?,
            Err(_) if listener.config.continue_on_timeout => Inspection::Raw,
            Err(_) => {
                stats.downstream_pre_cx_timeout.inc();
                let silent = "it sent nothing to inspect in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
            }
        },
    };
    Ok(match inspection {
        Inspection::Tls(hello) => Some(hello),
        Inspection::Raw => None,
        Inspection::TooLarge => {
            stats.downstream_listener_filter_error.inc();
            return Err(io::Error::other("its ClientHello is larger than any real one"));
        }
    })
}
