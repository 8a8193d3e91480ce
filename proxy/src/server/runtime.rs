//! The worker threads: one single-threaded runtime each, steered by commands, ended by a drain.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::drain::{Phase, Watch};
use crate::listener::accept::{self, Acceptor};
use crate::listener::manager::Command;
use crate::net::listening::Listening;
use crate::worker::{Shared, Worker};

/// A running worker thread.
#[derive(Debug)]
pub(super) struct Handle {
    /// Where its commands go.
    pub(super) commands: UnboundedSender<Command>,
    thread: thread::JoinHandle<()>,
}

impl Handle {
    /// Waits until the worker has served its last connection.
    ///
    /// # Errors
    /// The worker panicked outside any connection.
    pub(super) fn join(self) -> thread::Result<()> {
        drop(self.commands);
        self.thread.join()
    }
}

/// Starts worker number `id`. `busy` is dropped when it has served its last connection.
///
/// # Errors
/// The system refuses a thread or an event queue.
pub(super) fn spawn(
    id: usize,
    shared: Shared,
    drain: Watch,
    busy: mpsc::Sender<()>,
) -> std::io::Result<Handle> {
    let (commands, inbox) = mpsc::unbounded_channel();
    let runtime =
        move || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let thread = thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        match runtime() {
            Ok(runtime) => runtime.block_on(run(Rc::new(Worker::new(id, shared)), inbox, drain)),
            Err(error) => tracing::error!(worker = id, %error, "cannot start: check `ulimit -n`"),
        }
        drop(busy);
    })?;
    Ok(Handle { commands, thread })
}

/// The sockets of one worker.
type Sockets = BTreeMap<u64, Rc<Acceptor>>;

async fn run(worker: Rc<Worker>, mut inbox: UnboundedReceiver<Command>, mut drain: Watch) {
    let mut sockets = Sockets::new();
    let mut changes = worker.shared.snapshots.changes();
    let mut pressure = worker.shared.overload.changes();
    let log = Rc::clone(&worker.log);
    let flushing = tokio::task::spawn_local(async move { log.keep_flushing().await });
    let clusters = Rc::clone(&worker.clusters);
    let forgetting = tokio::task::spawn_local(async move { clusters.keep_forgetting().await });
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(command) => obey(&worker, &mut sockets, command),
                None => break,
            },
            _ = changes.changed() => worker.clusters.follow(&worker.snapshot().clusters),
            _ = pressure.changed() => sockets.values().for_each(|it| it.connections.wake()),
            () = drain.reached(Phase::Draining) => break,
        }
    }
    for socket in sockets.values() {
        socket.close();
    }
    tokio::select! {
        () = all_idle(&sockets) => {}
        () = drain.reached(Phase::Closing) => {
            for socket in sockets.values() {
                socket.connections.advance(Phase::Closing);
            }
            all_idle(&sockets).await;
        }
    }
    forgetting.abort();
    flushing.abort();
    worker.log.flush();
}

fn obey(worker: &Rc<Worker>, sockets: &mut Sockets, command: Command) {
    sockets.retain(|_, socket| !Acceptor::is_done(socket));
    match command {
        Command::Listen { id, name, address, socket } => {
            let watched = socket
                .map(|(socket, seat)| Ok::<_, std::io::Error>((Listening::new(socket)?, seat)));
            let listener = match watched.transpose() {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(listener = %name, %error, "cannot watch its socket: check `ulimit -n`");
                    return;
                }
            };
            let acceptor = Rc::new(Acceptor::new(Arc::clone(&name), address));
            worker.set_connections_of(name, Rc::clone(&acceptor.connections));
            if let Some((listener, seat)) = listener {
                let accepting =
                    accept::run(Rc::clone(worker), Rc::clone(&acceptor), listener, seat);
                tokio::task::spawn_local(accepting);
            }
            sockets.insert(id, acceptor);
        }
        Command::Pass { id, to } => {
            if let Some(socket) = sockets.get(&id) {
                worker.forget_connections(&socket.connections);
                worker.set_connections_of(Arc::clone(&to), Rc::clone(&socket.connections));
                socket.pass_to(to);
            }
        }
        Command::Stop { id } => {
            if let Some(socket) = sockets.get(&id) {
                worker.forget_connections(&socket.connections);
                socket.close();
            }
        }
        Command::Drain { id } => {
            if let Some(socket) = sockets.get(&id) {
                socket.connections.advance(Phase::Draining);
            }
        }
    }
}

/// Resolves once no connection is left.
async fn all_idle(sockets: &Sockets) {
    for socket in sockets.values() {
        socket.connections.emptied().await;
    }
}
