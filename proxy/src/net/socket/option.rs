//! Socket options by the system's numbers (Envoy `core.v3.SocketOption`): those that have a name here.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use socket2::Socket;

/// An option to set on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    /// Which one.
    pub kind: Kind,
    /// `int_value`, or a number in `buf_value`; 0 for an option that is a name.
    pub value: i32,
    /// `buf_value` of an option that is a name; empty for the others.
    pub name: Box<[u8]>,
    /// When.
    pub state: State,
}

/// Envoy `SocketOption.SocketState`: when an option is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// STATE_PREBIND
    Prebind,
    /// STATE_BOUND
    Bound,
    /// STATE_LISTENING
    Listening,
}

/// An option that has a name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the system's own names, see socket(7), tcp(7), ip(7), ipv6(7)")]
pub enum Kind {
    SoReuseAddr,
    SoSndBuf,
    SoRcvBuf,
    SoKeepAlive,
    SoPriority,
    SoReusePort,
    SoMark,
    SoBindToDevice,
    TcpNoDelay,
    TcpMaxSeg,
    TcpCork,
    TcpKeepIdle,
    TcpKeepIntvl,
    TcpKeepCnt,
    TcpQuickAck,
    TcpUserTimeout,
    TcpNotsentLowat,
    TcpCongestion,
    IpTos,
    IpTtl,
    IpFreebind,
    IpTransparent,
    Ipv6V6only,
    Ipv6UnicastHops,
    Ipv6Tclass,
}

impl Kind {
    /// The option with these numbers; none if it has no name here.
    pub fn of(level: i64, name: i64) -> Option<Self> {
        let (level, name) = (i32::try_from(level).ok()?, i32::try_from(name).ok()?);
        Some(match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => Self::SoReuseAddr,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => Self::SoSndBuf,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => Self::SoRcvBuf,
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => Self::SoKeepAlive,
            (libc::SOL_SOCKET, libc::SO_PRIORITY) => Self::SoPriority,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => Self::SoReusePort,
            (libc::SOL_SOCKET, libc::SO_MARK) => Self::SoMark,
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => Self::SoBindToDevice,
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => Self::TcpNoDelay,
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => Self::TcpMaxSeg,
            (libc::IPPROTO_TCP, libc::TCP_CORK) => Self::TcpCork,
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => Self::TcpKeepIdle,
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => Self::TcpKeepIntvl,
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => Self::TcpKeepCnt,
            (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => Self::TcpQuickAck,
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => Self::TcpUserTimeout,
            (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => Self::TcpNotsentLowat,
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => Self::TcpCongestion,
            (libc::IPPROTO_IP, libc::IP_TOS) => Self::IpTos,
            (libc::IPPROTO_IP, libc::IP_TTL) => Self::IpTtl,
            (libc::IPPROTO_IP, libc::IP_FREEBIND) => Self::IpFreebind,
            (libc::IPPROTO_IP, libc::IP_TRANSPARENT) => Self::IpTransparent,
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => Self::Ipv6V6only,
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => Self::Ipv6UnicastHops,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => Self::Ipv6Tclass,
            _ => return None,
        })
    }

    /// Whether its value is a name instead of a number.
    pub fn is_named(self) -> bool {
        matches!(self, Self::SoBindToDevice | Self::TcpCongestion)
    }
}

impl SocketOption {
    /// Sets it.
    ///
    /// # Errors
    /// What the system says, and a value that is negative where it must not be.
    pub fn set(&self, socket: &Socket) -> io::Result<()> {
        let on = self.value != 0;
        let number =
            || u32::try_from(self.value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let size = || Ok::<_, io::Error>(number()? as usize);
        let seconds = || Ok::<_, io::Error>(Duration::from_secs(number()?.into()));
        match self.kind {
            Kind::SoReuseAddr => socket.set_reuse_address(on),
            Kind::SoSndBuf => socket.set_send_buffer_size(size()?),
            Kind::SoRcvBuf => socket.set_recv_buffer_size(size()?),
            Kind::SoKeepAlive => socket.set_keepalive(on),
            Kind::SoPriority => socket.set_priority(number()?),
            Kind::SoReusePort => socket.set_reuse_port(on),
            Kind::SoMark => socket.set_mark(number()?),
            Kind::SoBindToDevice => socket.bind_device(Some(&self.name)),
            Kind::TcpNoDelay => socket.set_tcp_nodelay(on),
            Kind::TcpMaxSeg => socket.set_tcp_mss(number()?),
            Kind::TcpCork => socket.set_tcp_cork(on),
            Kind::TcpKeepIdle => Ok(sockopt::set_tcp_keepidle(socket, seconds()?)?),
            Kind::TcpKeepIntvl => Ok(sockopt::set_tcp_keepintvl(socket, seconds()?)?),
            Kind::TcpKeepCnt => Ok(sockopt::set_tcp_keepcnt(socket, number()?)?),
            Kind::TcpQuickAck => socket.set_tcp_quickack(on),
            Kind::TcpUserTimeout => Ok(sockopt::set_tcp_user_timeout(socket, number()?)?),
            Kind::TcpNotsentLowat => socket.set_tcp_notsent_lowat(number()?),
            Kind::TcpCongestion => socket.set_tcp_congestion(&self.name),
            Kind::IpTos => socket.set_tos_v4(number()?),
            Kind::IpTtl => socket.set_ttl_v4(number()?),
            Kind::IpFreebind => socket.set_freebind_v4(on),
            Kind::IpTransparent => socket.set_ip_transparent_v4(on),
            Kind::Ipv6V6only => socket.set_only_v6(on),
            Kind::Ipv6UnicastHops => socket.set_unicast_hops_v6(number()?),
            Kind::Ipv6Tclass => socket.set_tclass_v6(number()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn options_are_found_by_their_numbers_and_set() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let set = |level: i32, name: i32, value| {
            let kind = Kind::of(level.into(), name.into()).unwrap();
            let name = Box::default();
            SocketOption { kind, value, name, state: State::Prebind }.set(&socket)
        };
        set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1).unwrap();
        set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 17).unwrap();
        set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3).unwrap();
        set(libc::IPPROTO_IP, libc::IP_TOS, 32).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(17));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tos_v4().unwrap(), 32);
        let kind = Kind::of(libc::IPPROTO_TCP.into(), libc::TCP_CONGESTION.into()).unwrap();
        let name: Box<[u8]> = (*b"reno").into();
        let reno = SocketOption { kind, value: 0, name, state: State::Prebind };
        reno.set(&socket).unwrap();
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
        let negative = set(libc::SOL_SOCKET, libc::SO_RCVBUF, -1).unwrap_err();
        assert_eq!(negative.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Kind::of(1, 9999), None);
        assert_eq!(Kind::of(i64::MAX, 1), None);
    }
}
