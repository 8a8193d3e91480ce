//! TCP sockets: listening ones, one per worker for the same address, and the options of connected ones.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// How a listening socket is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel holds for a worker until it accepts them.
    pub backlog: i32,
    /// Whether an IPv6 wildcard address also takes IPv4 (Envoy `ipv4_compat`).
    pub ipv4_compat: bool,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {check}")]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
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
/// answer on one port by turns are not what anybody wants.
pub fn listen(
    address: SocketAddr,
    options: ListenOptions,
    count: NonZeroUsize,
) -> Result<Vec<TcpListener>, BindError> {
    let explain = |source: io::Error| BindError { address, check: check(&source), source };
    bind(address, options, false).map_err(explain)?;
    let first = open(address, options).map_err(explain)?;
    let shared = first.local_addr().map_err(explain)?;
    let mut sockets = vec![first];
    for _ in 1..count.get() {
        sockets.push(open(shared, options).map_err(explain)?);
    }
    Ok(sockets)
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

fn open(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let socket = bind(address, options, true)?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, options: ListenOptions, share: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    socket.bind(&address.into())?;
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

    const OPTIONS: ListenOptions = ListenOptions { backlog: 16, ipv4_compat: false };

    fn count(sockets: usize) -> NonZeroUsize {
        NonZeroUsize::new(sockets).unwrap()
    }

    #[test]
    fn the_sockets_of_all_workers_share_one_port() {
        let sockets = listen("127.0.0.1:0".parse().unwrap(), OPTIONS, count(3)).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap().port() == port));
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_the_address_and_the_remedy() {
        let held = listen("127.0.0.1:0".parse().unwrap(), OPTIONS, count(2)).unwrap();
        let address = held[0].local_addr().unwrap();
        let error = listen(address, OPTIONS, count(1)).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("ss -ltnp"), "{error}");
        drop(held);
        listen(address, OPTIONS, count(1)).unwrap();
    }

    #[test]
    fn an_ipv6_wildcard_takes_ipv4_only_when_asked() {
        let compat = ListenOptions { ipv4_compat: true, ..OPTIONS };
        for (options, reachable) in [(OPTIONS, false), (compat, true)] {
            let sockets = listen("[::]:0".parse().unwrap(), options, count(1)).unwrap();
            let port = sockets[0].local_addr().unwrap().port();
            assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), reachable);
        }
    }

    #[test]
    fn options_are_set_on_a_connected_socket() {
        let sockets = listen("127.0.0.1:0".parse().unwrap(), OPTIONS, count(1)).unwrap();
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
