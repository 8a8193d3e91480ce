//! Ports that nobody else takes between choosing them and the proxy's own bind.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1, held until this is dropped.
///
/// The socket that holds it is bound but never listens, so it receives nothing; it shares the port
/// with a proxy that binds it with `SO_REUSEPORT` or `SO_REUSEADDR`, and keeps the kernel from
/// handing it to anyone who asks for a free port.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _holder: Socket,
}

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Self {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        holder.set_reuse_address(true).expect("SO_REUSEADDR");
        holder.set_reuse_port(true).expect("SO_REUSEPORT");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        holder.bind(&any.into()).expect("a free port on 127.0.0.1");
        let address = holder.local_addr().expect("a bound socket").as_socket().expect("IPv4");
        Self { address, _holder: holder }
    }

    /// The address to listen on, and to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl From<&Port> for SocketAddr {
    fn from(port: &Port) -> Self {
        port.address
    }
}
