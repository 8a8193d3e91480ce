//! The client's side of TLS: a `rustls` configuration made of an `UpstreamTlsContext`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::peer::PeerInfo;
use super::secrets::Secrets;
use crate::config::Invalid;
use crate::config::tls::UpstreamTls;

/// TLS to the endpoints of one cluster.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

/// Why no TLS connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server name to send is no DNS name.
    #[error("`{0}` is no server name; check sni and the endpoint's hostname")]
    ServerName(String),
    /// The peer or its certificate was refused, or refused us.
    #[error("TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection broke.
    #[error("connection lost during the TLS handshake: {0}")]
    Io(io::Error),
}

impl ClientTls {
    /// Reads the certificates and roots that `context` names, and checks that they fit together.
    pub fn build(context: &UpstreamTls, secrets: &Secrets) -> Result<Self, Invalid> {
        let _ = (context, secrets);
        Err(Invalid::new("", "TLS to upstream is not linked in yet"))
    }

    /// Performs the handshake over `io`. `server_name` is sent as SNI; `alpn` is offered in this order.
    /// The caller sets the time limit.
    pub async fn connect<IO>(
        &self,
        io: IO,
        server_name: Option<&str>,
        alpn: &[&str],
    ) -> Result<(TlsStream<IO>, PeerInfo), ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match server_name {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| ConnectError::ServerName(name.to_owned()))?,
            None => ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        };
        let alpn = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TlsConnector::from(Arc::clone(&self.config))
            .with_alpn(alpn)
            .connect(name, io)
            .await
            .map_err(ConnectError::from)?;
        let (_, state) = stream.get_ref();
        let peer = PeerInfo::new(state, server_name, false);
        Ok((stream, peer))
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(refused) => Self::Handshake(refused),
            Err(broken) => Self::Io(broken),
        }
    }
}
