//! Which sockets open, pass on and close, as the workers are told.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use std::net::{SocketAddr, TcpListener};

use crate::snapshot;

/// A manager with one worker that only listens to what it is told.
struct World {
    manager: Manager,
    told: UnboundedReceiver<Command>,
    /// Sockets stay open until the worker would close them.
    sockets: Vec<(u64, Bound)>,
}

impl World {
    fn new() -> Self {
        let (commands, told) = unbounded_channel();
        let manager = Manager::new(vec![commands], Arc::default());
        Self { manager, told, sockets: Vec::new() }
    }

    /// Publishes listeners by name and address; says what the worker was told.
    fn publish(&mut self, listeners: &[(&str, SocketAddr)]) -> Vec<String> {
        let next = snapshot(listeners);
        let prepared = self.manager.prepare(&next).unwrap();
        self.manager.commit(&next, prepared);
        let mut told = Vec::new();
        while let Ok(command) = self.told.try_recv() {
            told.push(match command {
                Command::Listen { id, name, address, socket } => {
                    self.sockets.extend(socket.map(|(socket, _)| (id, socket)));
                    format!("listen {id} {name} {}", place(listeners, &address))
                }
                Command::Pass { id, to } => format!("pass {id} {to}"),
                Command::Stop { id } => {
                    self.sockets.retain(|(open, _)| *open != id);
                    format!("stop {id}")
                }
                Command::Drain { id } => format!("drain {id}"),
            });
        }
        told
    }

    fn counts(&self) -> [u64; 3] {
        let stats = self.manager.metrics.server();
        [&stats.listener_added, &stats.listener_modified, &stats.listener_removed]
            .map(|counter| counter.get())
    }
}

/// The position of the listener that is at `address`.
fn place(listeners: &[(&str, SocketAddr)], address: &HostAddress) -> usize {
    listeners.iter().position(|(_, at)| HostAddress::Ip(*at) == *address).unwrap()
}

fn snapshot(listeners: &[(&str, SocketAddr)]) -> Snapshot {
    let listener = |name: &str, address: SocketAddr| snapshot::Listener {
        config: Arc::new(Listener {
            name: name.into(),
            addresses: vec![ListenAddress {
                address: address.into(),
                options: ListenOptions { backlog: 16, ..ListenOptions::default() },
            }],
            bind_to_port: true,
            use_original_dst: false,
            stat_prefix: name.into(),
            filter_chains: Vec::new(),
            default_filter_chain: None,
            listener_filters: Vec::new(),
            listener_filters_timeout: None,
            continue_on_timeout: false,
            buffer_limit: 1 << 20,
            ignore_global_conn_limit: false,
            bypass_overload_manager: false,
            exact_balance: false,
            direction: TrafficDirection::Unspecified,
            access_logs: Vec::new(),
            metadata: None,
        }),
        matcher: crate::filter_chain::FilterChainMatcher::compile(&[]).unwrap(),
        chains: Vec::new(),
        default_chain: None,
    };
    let listeners = listeners.iter().map(|(name, at)| ((*name).into(), listener(name, *at).into()));
    Snapshot { listeners: listeners.collect(), ..Snapshot::default() }
}

/// Two addresses nobody listens on.
fn addresses() -> [SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|socket| socket.local_addr().unwrap())
}

#[test]
fn only_a_changed_address_moves_a_socket() {
    let [one, two] = addresses();
    let mut world = World::new();
    assert_eq!(world.publish(&[("a", one)]), ["listen 0 a 0"]);
    assert!(world.publish(&[("a", one)]).is_empty());
    assert_eq!(world.publish(&[("a", two)]), ["listen 1 a 0", "stop 0"]);
    assert_eq!(world.counts(), [1, 1, 0]);
    assert_eq!(world.publish(&[]), ["stop 1"]);
    assert_eq!(world.counts(), [1, 1, 1]);
}

#[test]
fn a_renamed_listener_keeps_its_socket() {
    let [one, _] = addresses();
    let mut world = World::new();
    world.publish(&[("old", one)]);
    assert_eq!(world.publish(&[("new", one)]), ["pass 0 new"]);
    assert_eq!(world.manager.addresses(), [("new".into(), one.into())]);
    assert_eq!(world.counts(), [2, 0, 1]);
    assert_eq!(world.publish(&[("old", one)]), ["pass 0 old"], "and back");
    assert_eq!(world.publish(&[]), ["stop 0"]);
}

#[test]
fn two_listeners_swap_their_sockets() {
    let [one, two] = addresses();
    let mut world = World::new();
    world.publish(&[("a", one), ("b", two)]);
    assert_eq!(world.publish(&[("a", two), ("b", one)]), ["pass 1 a", "pass 0 b"]);
    assert_eq!(world.manager.addresses(), [("a".into(), two.into()), ("b".into(), one.into())]);
    assert_eq!(world.counts(), [2, 2, 0]);
}

#[test]
fn an_address_is_taken_over_from_a_listener_that_moves() {
    let [one, two] = addresses();
    let mut world = World::new();
    world.publish(&[("a", one)]);
    assert_eq!(world.publish(&[("a", two), ("b", one)]), ["pass 0 b", "listen 1 a 0"]);
    assert_eq!(world.counts(), [2, 1, 0]);
}

#[test]
fn a_port_that_the_system_chose_is_not_passed_on() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut world = World::new();
    world.publish(&[("a", any)]);
    assert_eq!(world.publish(&[("b", any)]), ["listen 1 b 0", "stop 0"]);
}

#[test]
fn a_refused_snapshot_moves_nothing() {
    let [one, two] = addresses();
    let mut world = World::new();
    world.publish(&[("old", one)]);
    let _held = TcpListener::bind(two).unwrap();
    let refused = world.manager.prepare(&snapshot(&[("new", one), ("other", two)])).unwrap_err();
    assert_eq!(&*refused.listener, "other");
    assert!(world.told.try_recv().is_err());
    assert_eq!(world.manager.addresses(), [("old".into(), one.into())]);
}

#[test]
fn a_stopped_listener_has_no_socket_to_pass_on() {
    let [one, _] = addresses();
    let mut world = World::new();
    world.publish(&[("old", one)]);
    world.manager.stop_all(false);
    world.sockets.clear();
    assert_eq!(world.publish(&[("new", one)]), ["stop 0", "listen 1 new 0"]);
}

#[test]
fn connections_find_the_listener_of_their_address() {
    let [one, two] = addresses();
    let found = |listeners: &[(&str, SocketAddr)], name: &str, address| {
        snapshot(listeners)
            .listener(name, &HostAddress::Ip(address))
            .map(|it| it.config.name.to_string())
    };
    assert_eq!(found(&[("a", one), ("b", two)], "a", one).unwrap(), "a");
    assert_eq!(found(&[("new", one)], "old", one).unwrap(), "new");
    assert_eq!(found(&[("a", two), ("b", one)], "a", one).unwrap(), "b");
    assert_eq!(found(&[("a", two)], "a", one).unwrap(), "a", "what still waits in the old queue");
    assert_eq!(found(&[("b", two)], "a", one), None);
}

#[test]
fn the_workers_share_the_socket_of_a_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in.sock");
    let options = ListenOptions { backlog: 16, ..ListenOptions::default() };
    let at = ListenAddress { address: HostAddress::parse(path.to_str().unwrap()), options };
    let two = NonZeroUsize::new(2).unwrap();
    let (sockets, _) = sockets(&at, two, false).unwrap();
    assert_eq!(sockets.len(), 2);
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let accepts = |socket: &Bound| match socket {
        Bound::Unix(socket) => socket.accept().is_ok(),
        Bound::Tcp(_) => false,
    };
    assert_eq!([accepts(&sockets[1]), accepts(&sockets[0])], [true, false], "one connection");
}
