//! TLS of the test client: whom it trusts, who it says it is, what name it asks for.

use std::sync::Arc;

use anyhow::{Context, Result};
use http::Version;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
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

impl TlsOptions {
    /// A client that takes any certificate, for servers that have one which names no host.
    pub fn trusting_anybody() -> Self {
        let config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        Self { config: Arc::new(config), server_name: "anybody.test".to_owned() }
    }
}

/// Verifies nothing.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
