//! Listening sockets, of TCP one per worker for the same address, and the options of connected ones.

pub mod option;
pub mod unix;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use option::{SocketOption, State};

/// How a listening socket is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel holds for a worker until it accepts them (Envoy `tcp_backlog_size`).
    pub backlog: i32,
    /// Whether an IPv6 wildcard address also takes IPv4 (Envoy `ipv4_compat`).
    pub ipv4_compat: bool,
    /// Whether connections to any address may be taken (Envoy `transparent`; needs `CAP_NET_ADMIN`).
    pub transparent: bool,
    /// Whether the address may be one that this machine does not have (Envoy `freebind`).
    pub freebind: bool,
    /// Whether clients may use several paths (Envoy `enable_mptcp`).
    pub mptcp: bool,
    /// The permissions of a Unix socket's file; 0 leaves them to the umask (Envoy `Pipe.mode`).
    pub mode: u32,
    /// Others, in the order they are set (Envoy `socket_options`).
    pub others: Vec<SocketOption>,
}

impl ListenOptions {
    fn set(&self, socket: &Socket, state: State) -> io::Result<()> {
        self.others.iter().filter(|it| it.state == state).try_for_each(|it| it.set(socket))
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {check}")]
pub struct BindError {
    /// The address as configured.
    pub address: Box<str>,
    /// What to look at.
    pub check: &'static str,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// Opens `count` non-blocking listening sockets for one address; the kernel spreads new connections
/// among them.
///
/// With port 0 all of them share the port that the first one was given. A port that some other
/// socket listens on is an error, even if that one would agree to share it: two programs that
/// answer on one port by turns are not what anybody wants. Not so if `ours` says that it is ourselves.
pub fn listen(
    address: SocketAddr,
    options: &ListenOptions,
    count: NonZeroUsize,
    ours: bool,
) -> Result<Vec<TcpListener>, BindError> {
    let explain = |source: io::Error| BindError {
        address: address.to_string().into(),
        check: check(&source),
        source,
    };
    if !ours {
        bind(address, options, false).map_err(explain)?;
    }
    let first = open(address, options).map_err(explain)?;
    let shared = first.local_addr().map_err(explain)?;
    let mut sockets = vec![first];
    for _ in 1..count.get() {
        sockets.push(open(shared, options).map_err(explain)?);
    }
    Ok(sockets)
}

/// Opens one non-blocking listening socket that shares its port with nobody.
pub fn listen_alone(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = bind(address, options, false)?;
    socket.listen(options.backlog)?;
    options.set(&socket, State::Listening)?;
    Ok(socket.into())
}

/// Sends small writes at once instead of waiting for more (`TCP_NODELAY`).
pub fn set_nodelay(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

/// Turns on TCP keepalive: after `time` without traffic, `probes` probes, one each `interval`.
/// What is not given stays as the system has it.
pub fn set_keepalive(
    socket: &impl AsFd,
    time: Option<Duration>,
    interval: Option<Duration>,
    probes: Option<u32>,
) -> io::Result<()> {
    let mut options = TcpKeepalive::new();
    if let Some(time) = time {
        options = options.with_time(time);
    }
    if let Some(interval) = interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = probes {
        options = options.with_retries(probes);
    }
    SockRef::from(socket).set_tcp_keepalive(&options)
}

fn open(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = bind(address, options, true)?;
    socket.listen(options.backlog)?;
    options.set(&socket, State::Listening)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, options: &ListenOptions, share: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(protocol))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    // On an IPv6 socket these mean IPv6, too.
    if options.transparent {
        socket.set_ip_transparent_v4(true)?;
    }
    if options.freebind {
        socket.set_freebind_v4(true)?;
    }
    options.set(&socket, State::Prebind)?;
    socket.bind(&address.into())?;
    options.set(&socket, State::Bound)?;
    Ok(socket)
}

/// What an operator should look at first.
fn check(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program or listener has this port: find it with `ss -ltnp`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE or a lower net.ipv4.ip_unprivileged_port_start"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has the address: compare with `ip address`"
        }
        _ => "check the address and the limits of this process",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn options() -> ListenOptions {
        ListenOptions { backlog: 16, ..ListenOptions::default() }
    }

    fn count(sockets: usize) -> NonZeroUsize {
        NonZeroUsize::new(sockets).unwrap()
    }

    #[test]
    fn the_sockets_of_all_workers_share_one_port() {
        let sockets = listen("127.0.0.1:0".parse().unwrap(), &options(), count(3), false).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap().port() == port));
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_the_address_and_the_remedy() {
        let held = listen("127.0.0.1:0".parse().unwrap(), &options(), count(2), false).unwrap();
        let address = held[0].local_addr().unwrap();
        let error = listen(address, &options(), count(1), false).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("ss -ltnp"), "{error}");
        listen(address, &options(), count(1), true).unwrap();
        drop(held);
        listen(address, &options(), count(1), false).unwrap();
    }

    #[test]
    fn an_ipv6_wildcard_takes_ipv4_only_when_asked() {
        let compat = ListenOptions { ipv4_compat: true, ..options() };
        for (options, reachable) in [(options(), false), (compat, true)] {
            let sockets = listen("[::]:0".parse().unwrap(), &options, count(1), false).unwrap();
            let port = sockets[0].local_addr().unwrap().port();
            assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), reachable);
            let alone = listen_alone("[::]:0".parse().unwrap(), &options).unwrap();
            let port = alone.local_addr().unwrap().port();
            assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), reachable);
        }
    }

    #[test]
    fn an_address_of_another_machine_is_bound_only_if_asked() {
        let address = "192.0.2.1:0".parse().unwrap();
        let error = listen(address, &options(), count(1), false).unwrap_err().to_string();
        assert!(error.contains("ip address"), "{error}");
        let free = ListenOptions { freebind: true, ..options() };
        listen(address, &free, count(2), false).unwrap();
    }

    #[test]
    fn options_are_set_in_their_states() {
        let option = |kind, value, state| SocketOption { kind, value, name: Box::default(), state };
        let others = vec![
            option(option::Kind::TcpMaxSeg, 1000, State::Prebind),
            option(option::Kind::SoPriority, 3, State::Bound),
            option(option::Kind::TcpKeepIdle, 9, State::Listening),
        ];
        let options = ListenOptions { others, ..options() };
        let sockets = listen("127.0.0.1:0".parse().unwrap(), &options, count(1), false).unwrap();
        let socket = SockRef::from(&sockets[0]);
        assert_eq!(socket.priority().unwrap(), 3);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(9));
    }

    #[test]
    fn options_are_set_on_a_connected_socket() {
        let sockets = listen("127.0.0.1:0".parse().unwrap(), &options(), count(1), false).unwrap();
        let mut client = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        let time = Duration::from_secs(7);
        set_keepalive(&client, Some(time), None, Some(3)).unwrap();
        set_nodelay(&client).unwrap();
        let socket = SockRef::from(&client);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), time);
        client.write_all(b"x").unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        let mut byte = [0];
        sockets[0].accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
