//! The server's side of TLS: a `rustls` configuration made of a `DownstreamTlsContext`.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, WantsServerCert};
use rustls::{CertificateError, ConfigBuilder, Error, HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::KeyUsage;

use super::certificate::CertificateFile;
use super::failure::explained;
use super::identity::{self, Identities};
use super::options;
use super::peer::PeerInfo;
use super::secrets::Secrets;
use super::ticket::AgedTickets;
use super::verify::{ClientVerifier, Policy, Trust};
use crate::config::Invalid;
use crate::config::tls::DownstreamTls;

/// TLS termination for one filter chain.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// For clients that offer only application protocols the chain does not know.
    without_alpn: Arc<ServerConfig>,
    identities: Arc<Identities>,
    policy: Option<Arc<Policy>>,
    /// Whether a secret is missing that may yet come.
    awaits_secrets: bool,
}

impl ServerTls {
    /// Reads the certificates and keys that `context` names, and checks that they fit together.
    ///
    /// # Errors
    /// The field of the context that cannot be honoured.
    pub fn build(context: &DownstreamTls, secrets: &Secrets) -> Result<Self, Invalid> {
        let common = &context.common;
        let provider = options::provider(common)?;
        let identities = identity::load(common, secrets, &provider)?;
        if identities.is_empty() {
            let path = "common_tls_context.tls_certificates";
            return Err(Invalid::new(path, "a server needs at least one certificate"));
        }
        let identities = Arc::new(Identities::new(identities));
        let policy = Policy::load(common, secrets)?.map(Arc::new);
        let builder = builder(context, provider, policy.as_ref())?;
        let mut config = builder.with_cert_resolver(Arc::clone(&identities) as _);
        set_resumption(&mut config, context)?;
        if let Some(log) = options::key_log(common)? {
            config.key_log = log;
        }
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = options::protocols(common);
        let config = Arc::new(config);
        Ok(Self { config, without_alpn, identities, policy, awaits_secrets: false })
    }

    /// Stands for a context whose secrets have not come yet: it accepts nobody.
    ///
    /// # Errors
    /// The field of the context that cannot be honoured.
    pub fn awaiting_secrets(context: &DownstreamTls) -> Result<Self, Invalid> {
        let identities = Arc::new(Identities::new(Vec::new()));
        let builder = builder(context, options::provider(&context.common)?, None)?;
        let config = Arc::new(builder.with_cert_resolver(Arc::clone(&identities) as _));
        let without_alpn = Arc::clone(&config);
        Ok(Self { config, without_alpn, identities, policy: None, awaits_secrets: true })
    }

    /// Performs the handshake. The caller sets the time limit.
    ///
    /// # Errors
    /// A broken connection, or a peer that was refused or refuses us; in the latter case the error
    /// holds a [`HandshakeError`](super::failure::HandshakeError), and the peer has been sent an alert.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<(TlsStream<IO>, PeerInfo)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if self.awaits_secrets {
            return Err(io::Error::other("the secrets of this chain have not come yet"));
        }
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(explained)?;
        let hello = start.client_hello();
        let local = self.identities.choose(hello.server_name(), hello.signature_schemes());
        let local = local.map(|identity| Arc::clone(&identity.leaf));
        let config = if self.shares_a_protocol(&hello) { &self.config } else { &self.without_alpn };
        let stream = start.into_stream(Arc::clone(config)).await.map_err(explained)?;
        let (_, state) = stream.get_ref();
        let chain = state.peer_certificates().unwrap_or_default();
        let trust = self.policy.as_ref().map_or(Trust::NotValidated, |policy| {
            policy.trust(chain, KeyUsage::client_auth(), None)
        });
        if let (Some(HandshakeKind::Resumed), Some(policy)) = (state.handshake_kind(), &self.policy)
            && !policy.still_valid(chain, SystemTime::now())
        {
            return Err(explained(io::Error::other(Error::from(CertificateError::Expired))));
        }
        let validated = trust == Trust::Validated;
        let peer = PeerInfo::new(state, state.server_name(), validated).with_local(local);
        Ok((stream, peer))
    }

    /// The certificates this context trusts and presents, for the admin API: the first root of its
    /// bundle, and every leaf.
    pub fn certificates(&self) -> (Option<CertificateFile>, Vec<CertificateFile>) {
        let trusted = self.policy.as_deref().and_then(Policy::file);
        let own = self.identities.all().iter().map(identity::Identity::file);
        (trusted, own.collect())
    }

    /// Whether ALPN can succeed, or is not asked for. Where it cannot, Envoy goes on without it.
    fn shares_a_protocol(&self, hello: &ClientHello<'_>) -> bool {
        let ours = &self.config.alpn_protocols;
        let Some(mut offered) = hello.alpn() else { return true };
        offered.any(|protocol| ours.iter().any(|our| our == protocol))
    }
}

fn builder(
    context: &DownstreamTls,
    provider: Arc<CryptoProvider>,
    policy: Option<&Arc<Policy>>,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, Invalid> {
    let required = context.require_client_certificate;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&options::versions(&context.common)?)
        .map_err(|error| Invalid::new("common_tls_context.tls_params", error.to_string()))?;
    if !required && !policy.is_some_and(|policy| policy.checks_anything()) {
        return Ok(builder.with_no_client_auth());
    }
    let verifier = ClientVerifier { policy: policy.cloned(), required };
    Ok(builder.with_client_cert_verifier(Arc::new(verifier)))
}

/// Sessions are resumed by tickets, if at all. Their keys belong to this very configuration: once a
/// certificate or a trusted root changes, a new one is built and old sessions cannot be resumed.
fn set_resumption(config: &mut ServerConfig, context: &DownstreamTls) -> Result<(), Invalid> {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if context.disable_tickets {
        config.send_tls13_tickets = 0;
        return Ok(());
    }
    let made = match context.session_timeout {
        Some(timeout) => AgedTickets::new(timeout).map(|tickets| Arc::new(tickets) as _),
        None => rustls::crypto::aws_lc_rs::Ticketer::new(),
    };
    config.ticketer = made.map_err(|error| Invalid::new("session_timeout", error.to_string()))?;
    Ok(())
}
