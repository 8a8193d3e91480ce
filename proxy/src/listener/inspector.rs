//! The first bytes of a connection: whether they are TLS, and which server name and protocols are asked for.

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// Not TLS.
    Raw,
    /// A TLS ClientHello.
    Tls(ClientHello),
}

/// What a ClientHello asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, in lower case.
    pub server_name: Option<Box<str>>,
    /// The application protocols, in the client's order.
    pub alpn: Vec<Box<[u8]>>,
}
