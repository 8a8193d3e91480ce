//! The accept loop of one listener on one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::admission;
use super::balance::{Place, Seat};
use super::first_words::FirstWords;
use super::receive::receive;
use crate::config::Name;
use crate::config::address::HostAddress;
use crate::drain::Phase;
use crate::drain::connections::ConnectionSet;
use crate::net::listening::Listening;
use crate::worker::Worker;

/// Pause after the process ran out of file descriptors; accepting at once again would only spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// One socket this worker accepts on, as its accept loop and those who steer it share it.
#[derive(Debug)]
pub struct Acceptor {
    listener: RefCell<Name>,
    pub(super) address: HostAddress,
    stop: Notify,
    closed: Cell<bool>,
    /// Who speaks first on connections that arrive here.
    pub(super) first_words: RefCell<FirstWords>,
    /// Its live connections.
    pub connections: Rc<ConnectionSet>,
}

impl Acceptor {
    /// A socket of `listener`, which configures it as `address`.
    pub fn new(listener: Name, address: HostAddress) -> Self {
        let listener = RefCell::new(listener);
        Self {
            listener,
            address,
            stop: Notify::default(),
            closed: Cell::default(),
            first_words: RefCell::default(),
            connections: Rc::default(),
        }
    }

    /// Ends its accept loop, and drains its connections.
    pub fn close(&self) {
        self.closed.set(true);
        self.stop.notify_one();
        self.connections.advance(Phase::Draining);
    }

    /// Whether nothing is left of it: it is closed, its accept loop has ended, and so have its connections.
    pub fn is_done(self: &Rc<Self>) -> bool {
        self.closed.get() && Rc::strong_count(self) == 1 && self.connections.is_empty()
    }

    /// Makes it a socket of `listener`, and drains the connections of the one before.
    pub fn pass_to(&self, listener: Name) {
        self.listener.replace(listener);
        self.connections.advance_present(Phase::Draining);
    }

    /// The path it is at, if it is a Unix socket.
    pub(super) fn pipe(&self) -> Option<Name> {
        match &self.address {
            HostAddress::Ip(_) => None,
            HostAddress::Pipe(path) => Some(Arc::clone(path)),
        }
    }

    /// The listener it accepts for.
    pub(super) fn listener(&self) -> Name {
        Arc::clone(&self.listener.borrow())
    }
}

/// Accepts connections until `acceptor` is closed, then takes what already waits in the socket's queue,
/// so that closing it resets nobody.
pub async fn run(worker: Rc<Worker>, acceptor: Rc<Acceptor>, socket: Listening, mut seat: Seat) {
    loop {
        let arrived = tokio::select! {
            biased;
            () = acceptor.stop.notified() => break,
            Some(handed) = seat.next() => handed.map(Some),
            accepted = accept(&worker, &acceptor, &socket) => {
                accepted.and_then(|(stream, remote)| {
                    let placed = place(&worker, &acceptor, &seat, stream, remote)?;
                    Ok(placed.map(|(stream, place)| (stream, remote, place)))
                })
            }
        };
        match arrived {
            Ok(Some((stream, remote, place))) => spawn(&worker, &acceptor, stream, remote, place),
            Ok(None) => {}
            Err(error) => pause_after(&acceptor.listener(), &error).await,
        }
    }
    while let Some(Ok((stream, remote))) = accept_waiting(&socket).await {
        spawn(&worker, &acceptor, stream, remote, seat.here());
    }
    seat.leave();
    while let Some(handed) = seat.next().await {
        match handed {
            Ok((stream, remote, place)) => spawn(&worker, &acceptor, stream, remote, place),
            Err(error) => pause_after(&acceptor.listener(), &error).await,
        }
    }
}

/// Decides which worker serves a connection; none comes back if it is another one.
fn place(
    worker: &Worker,
    acceptor: &Acceptor,
    seat: &Seat,
    stream: TcpStream,
    remote: SocketAddr,
) -> io::Result<Option<(TcpStream, Place)>> {
    let snapshot = worker.snapshot();
    let listener = snapshot.listener(&acceptor.listener(), &acceptor.address);
    if listener.is_some_and(|listener| listener.config.exact_balance) {
        seat.assign(stream, remote)
    } else {
        Ok(Some((stream, seat.here())))
    }
}

/// The next connection, once it may be taken.
async fn accept(
    worker: &Worker,
    acceptor: &Acceptor,
    socket: &Listening,
) -> io::Result<(TcpStream, SocketAddr)> {
    admission::relieved(worker, acceptor).await;
    socket.accept().await
}

/// A connection that has already arrived, if there is one.
async fn accept_waiting(socket: &Listening) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match socket.poll_accept(cx) {
            std::task::Poll::Ready(accepted) => Some(accepted),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

async fn pause_after(name: &Name, error: &io::Error) {
    // Errors of one connection that died in the queue need no pause (accept(2)).
    let exhausted = matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    );
    if exhausted {
        tracing::warn!(listener = %name, %error, "cannot accept: out of file descriptors or memory; check `ulimit -n`");
        tokio::time::sleep(BACK_OFF).await;
    } else {
        tracing::debug!(listener = %name, %error, "a connection was gone before it was accepted");
    }
}

fn spawn(
    worker: &Rc<Worker>,
    acceptor: &Rc<Acceptor>,
    stream: TcpStream,
    remote: SocketAddr,
    place: Place,
) {
    let Some(permit) = admission::admit(worker, acceptor) else { return };
    let membership = acceptor.connections.join();
    let (worker, acceptor) = (Rc::clone(worker), Rc::clone(acceptor));
    tokio::task::spawn_local(async move {
        // In a box that goes when the connection's filter has it: most live long, and silently.
        let receiving = async move {
            let control = Rc::clone(&membership.control);
            let counted = (permit, place);
            let received = tokio::select! {
                received = receive(&worker, &acceptor, stream, remote, membership, counted) => received,
                () = control.drained(worker.shared.drain_time) => {
                    Err(io::Error::other("the drain ended first"))
                }
            };
            received.inspect_err(|error| {
                let listener = acceptor.listener();
                tracing::debug!(%listener, %remote, %error, "connection ended before it was served");
            })
        };
        if let Ok(serving) = Box::pin(receiving).await {
            serving.await;
        }
    });
}
