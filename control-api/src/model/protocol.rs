//! Which protocol a Kubernetes service's port speaks, by its `appProtocol` or the prefix of its name.

use super::kubernetes::ServicePort;

/// A protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// An HTTP/1 proxy.
    HttpProxy,
    /// HTTP/2 in the clear.
    Http2,
    /// HTTP in TLS that does not end here.
    Https,
    /// gRPC.
    Grpc,
    /// gRPC as browsers speak it.
    GrpcWeb,
    /// A stream of bytes.
    Tcp,
    /// TLS that does not end here.
    Tls,
    /// Datagrams.
    Udp,
    /// `MongoDB`.
    Mongo,
    /// Redis.
    Redis,
    /// `MySQL`.
    Mysql,
    /// Nothing says; the first bytes will tell.
    Unknown,
}

/// Ports of servers that speak first, so that nothing can be told from the client's bytes.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// The protocol of a service's port.
    pub fn of(port: &ServicePort) -> Self {
        if port.protocol == "UDP" {
            return Self::Udp;
        }
        match port.app_protocol.as_deref() {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            _ => {}
        }
        let name = port.app_protocol.as_deref().unwrap_or(&port.name).to_ascii_lowercase();
        match Self::named(&name) {
            Self::Unknown if SERVER_FIRST.contains(&port.port) => Self::Tcp,
            protocol => protocol,
        }
    }

    /// Whether requests can be told apart: HTTP of any version, in the clear.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::HttpProxy | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether it is TLS that does not end here.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Whether connections are forwarded as they are.
    pub fn is_tcp(self) -> bool {
        self.is_tls() || matches!(self, Self::Tcp | Self::Mongo | Self::Redis | Self::Mysql)
    }

    /// The protocol of this name, in lower case; what follows a `-` does not count.
    pub fn named(name: &str) -> Self {
        if name.starts_with("grpc-web") {
            return Self::GrpcWeb;
        }
        match name.split('-').next().unwrap_or_default() {
            "http" => Self::Http,
            "http_proxy" => Self::HttpProxy,
            "http2" => Self::Http2,
            "https" => Self::Https,
            "grpc" => Self::Grpc,
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::Mysql,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_come_from_app_protocol_then_name_then_number() {
        let port = |name: &str, app: Option<&str>, number| {
            let app_protocol = app.map(ToOwned::to_owned);
            Protocol::of(&ServicePort {
                name: name.into(),
                app_protocol,
                port: number,
                ..ServicePort::default()
            })
        };
        assert_eq!(port("http-web", None, 80), Protocol::Http);
        assert_eq!(port("grpc-web-x", None, 80), Protocol::GrpcWeb);
        assert_eq!(port("http", Some("kubernetes.io/h2c"), 80), Protocol::Http2);
        assert_eq!(port("http", Some("tcp"), 80), Protocol::Tcp);
        assert_eq!(port("web", None, 80), Protocol::Unknown);
        assert_eq!(port("db", None, 3306), Protocol::Tcp);
    }
}
