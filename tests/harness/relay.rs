//! Stands between a proxy and a server that it needs, and does to it what happens to servers: it is killed, hangs, and
//! comes back.

use std::net::SocketAddr;

use tokio::io::{copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::port::Port;

/// A server that can be taken away; at first it is there.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    server: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    hangs: watch::Sender<bool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Stands for `server`, at an address of its own.
    pub async fn to(server: impl Into<SocketAddr>) -> Self {
        let mut relay = Self::without(server);
        relay.restart().await;
        relay
    }

    /// As [`to`](Self::to), but the server is not there yet.
    pub fn without(server: impl Into<SocketAddr>) -> Self {
        Self { port: Port::reserve(), server: server.into(), running: None }
    }

    /// As when the server is killed: its connections are closed, new ones refused.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.stop);
            running.task.await.unwrap();
        }
    }

    /// As when the server hangs: its connections stay, new ones are accepted, and nothing is answered.
    pub async fn hang(&mut self) {
        let running = match self.running.take() {
            Some(running) => running,
            None => self.listen().await,
        };
        running.hangs.send_replace(true);
        self.running = Some(running);
    }

    /// As when the server is killed and started again.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.running = Some(self.listen().await);
    }

    async fn listen(&self) -> Running {
        let listener = TcpListener::bind(self.port.address()).await.unwrap();
        let (hangs, hanging) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, self.server, hanging, stopped));
        Running { hangs, stop, task }
    }
}

impl From<&Relay> for SocketAddr {
    fn from(relay: &Relay) -> Self {
        relay.port.address()
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    hangs: watch::Receiver<bool>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            _ = connections.join_next(), if !connections.is_empty() => {}
            Ok((near, _)) = listener.accept() => {
                connections.spawn(pass(near, server, hangs.clone()));
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Passes on what both sides say, until the server hangs.
async fn pass(mut near: TcpStream, server: SocketAddr, mut hangs: watch::Receiver<bool>) {
    let passing = async {
        let mut far = TcpStream::connect(server).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        copy_bidirectional(&mut near, &mut far).await
    };
    tokio::select! {
        biased;
        Ok(_) = hangs.wait_for(|hangs| *hangs) => {}
        // Whoever breaks off may do so.
        _ = passing => return,
    }
    let _ = copy(&mut near, &mut sink()).await;
}
