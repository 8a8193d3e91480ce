//! TLS of the test client: whom it trusts, who it says it is, what name it asks for.

use std::sync::Arc;

use anyhow::{Context, Result};
use http::Version;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a [`Client`](super::Client) speaks TLS.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Trust and identity, and perhaps what is offered by ALPN in place of the client's protocol.
    pub config: Arc<ClientConfig>,
    /// The name in the SNI, verified against the server's certificate.
    pub server_name: String,
}

impl TlsOptions {
    /// Handshakes over `tcp`, offering the protocol of `version` by ALPN unless told otherwise.
    pub async fn handshake(
        &self,
        tcp: TcpStream,
        version: Version,
    ) -> Result<TlsStream<TcpStream>> {
        let alpn = if version == Version::HTTP_2 { "h2" } else { "http/1.1" };
        let mut config = ClientConfig::clone(&self.config);
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![alpn.into()];
        }
        let name = ServerName::try_from(self.server_name.clone())?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, tcp).await.context("TLS handshake")
    }
}
