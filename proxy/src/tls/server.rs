//! The server's side of TLS: a `rustls` configuration made of a `DownstreamTlsContext`.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::peer::PeerInfo;
use super::secrets::Secrets;
use crate::config::Invalid;
use crate::config::tls::DownstreamTls;

/// TLS termination for one filter chain.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads the certificates and keys that `context` names, and checks that they fit together.
    pub fn build(context: &DownstreamTls, secrets: &Secrets) -> Result<Self, Invalid> {
        let _ = (context, secrets);
        Err(Invalid::new("", "TLS termination is not linked in yet"))
    }

    /// Performs the handshake. The caller sets the time limit.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<(TlsStream<IO>, PeerInfo)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(io).await?;
        let (_, state) = stream.get_ref();
        let peer = PeerInfo::new(state, state.server_name(), false);
        Ok((stream, peer))
    }
}
