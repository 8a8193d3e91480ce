//! The client's side of TLS: a `rustls` configuration made of an `UpstreamTlsContext`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, ClientConnection, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::KeyUsage;

use super::certificate::CertificateFile;
use super::failure::HandshakeError;
use super::identity::{self, Identity};
use super::options;
use super::peer::PeerInfo;
use super::secrets::Secrets;
use super::verify::{Policy, ServerVerifier, Trust};
use crate::config::Invalid;
use crate::config::tls::UpstreamTls;

/// TLS to the endpoints of one cluster.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    identity: Option<Identity>,
    policy: Option<Arc<Policy>>,
    check_server_name: bool,
    /// Whether a secret is missing that may yet come.
    awaits_secrets: bool,
}

/// Why no TLS connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server name to send is no DNS name.
    #[error("`{0}` is no server name; check sni and the endpoint's hostname")]
    ServerName(String),
    /// The certificate should be for the server name, and there is none.
    #[error("auto_sni_san_validation needs a server name; set sni, auto_host_sni or auto_sni")]
    NoServerName,
    /// The certificate should be for the host, and there is nothing to check it by.
    #[error("auto_san_validation needs validation_context.trusted_ca, by which to check the name")]
    NothingToCheckBy,
    /// A secret is missing that may yet come.
    #[error("the secrets of this cluster have not come yet")]
    AwaitsSecrets,
    /// The peer or its certificate was refused, or refused us.
    #[error("TLS handshake failed: {0}")]
    Handshake(HandshakeError),
    /// The connection broke.
    #[error("connection lost during the TLS handshake: {0}")]
    Io(io::Error),
}

impl ClientTls {
    /// Reads the certificates and roots that `context` names, and checks that they fit together.
    ///
    /// # Errors
    /// The field of the context that cannot be honoured.
    pub fn build(context: &UpstreamTls, secrets: &Secrets) -> Result<Self, Invalid> {
        let common = &context.common;
        let provider = options::provider(common)?;
        let mut identities = identity::load(common, secrets, &provider)?;
        if identities.len() > 1 {
            let path = "common_tls_context.tls_certificates[1]";
            return Err(Invalid::new(path, "a client can have only one certificate"));
        }
        let identity = identities.pop();
        let policy = Policy::load(common, secrets)?.map(Arc::new);
        let check_server_name = context.auto_sni_san_validation;
        if check_server_name && policy.as_ref().is_none_or(|policy| policy.roots().is_none()) {
            let reason = "needs validation_context.trusted_ca: anybody can make a certificate";
            return Err(Invalid::new("auto_sni_san_validation", reason));
        }
        let verifier = ServerVerifier { policy: policy.clone(), check_server_name };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&options::versions(common)?)
            .map_err(|error| Invalid::new("common_tls_context.tls_params", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &identity {
            Some(identity) => {
                let presented = SingleCertAndKey::from(Arc::clone(&identity.key));
                builder.with_client_cert_resolver(Arc::new(presented))
            }
            None => builder.with_no_client_auth(),
        };
        if let Some(log) = options::key_log(common)? {
            config.key_log = log;
        }
        let config = Arc::new(config);
        Ok(Self { config, identity, policy, check_server_name, awaits_secrets: false })
    }

    /// Stands for a context whose secrets have not come yet: it connects to nobody.
    ///
    /// # Errors
    /// The field of the context that cannot be honoured.
    pub fn awaiting_secrets(context: &UpstreamTls) -> Result<Self, Invalid> {
        let common = &context.common;
        let check_server_name = context.auto_sni_san_validation;
        let verifier = ServerVerifier { policy: None, check_server_name };
        let config = ClientConfig::builder_with_provider(options::provider(common)?)
            .with_protocol_versions(&options::versions(common)?)
            .map_err(|error| Invalid::new("common_tls_context.tls_params", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let config = Arc::new(config);
        Ok(Self { config, identity: None, policy: None, check_server_name, awaits_secrets: true })
    }

    /// Whether the server's certificate is checked at all. Without `trusted_ca` and hashes it is not,
    /// as in Envoy, and the connection is only as private as the network.
    pub fn verifies(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.checks_anything())
    }

    /// The certificates this context trusts and presents, for the admin API: the first root of its
    /// bundle, and its leaf.
    pub fn certificates(&self) -> (Option<CertificateFile>, Option<CertificateFile>) {
        let trusted = self.policy.as_deref().and_then(Policy::file);
        (trusted, self.identity.as_ref().map(Identity::file))
    }

    /// Performs the handshake over `io`. `server_name` is sent as SNI; `alpn` is offered in this order.
    /// The certificate must hold `certified_name` as well, if one is given. The caller sets the time
    /// limit.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect<IO>(
        &self,
        io: IO,
        server_name: Option<&str>,
        certified_name: Option<&str>,
        alpn: &[&str],
    ) -> Result<(TlsStream<IO>, PeerInfo), ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if self.awaits_secrets {
            return Err(ConnectError::AwaitsSecrets);
        }
        if certified_name.is_some() && !self.verifies() {
            return Err(ConnectError::NothingToCheckBy);
        }
        let name = match server_name {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| ConnectError::ServerName(name.to_owned()))?,
            None if self.check_server_name => return Err(ConnectError::NoServerName),
            None => ServerName::from(NO_NAME),
        };
        let alpn = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.with_alpn(alpn).connect(name, io).await?;
        let (_, state) = stream.get_ref();
        let peer = self.peer(state, server_name, certified_name)?;
        Ok((stream, peer))
    }

    fn peer(
        &self,
        state: &ClientConnection,
        server_name: Option<&str>,
        certified_name: Option<&str>,
    ) -> Result<PeerInfo, ConnectError> {
        let chain = state.peer_certificates().unwrap_or_default();
        // Only here, not inside the handshake: sessions are shared by requests to different hosts, and a
        // session that is resumed is not verified again. Nothing of a request has been sent yet.
        if let (Some(name), Some(policy)) = (certified_name, &self.policy) {
            policy.check_name(chain, name).map_err(|error| HandshakeError::new(error.into()))?;
        }
        let checked_name = server_name.filter(|_| self.check_server_name);
        let trust = self.policy.as_ref().map_or(Trust::NotValidated, |policy| {
            policy.trust(chain, KeyUsage::server_auth(), checked_name)
        });
        if let (Some(HandshakeKind::Resumed), Some(policy)) = (state.handshake_kind(), &self.policy)
            && !policy.still_valid(chain, SystemTime::now())
        {
            return Err(HandshakeError::new(CertificateError::Expired.into()).into());
        }
        let local = self.identity.as_ref().map(|identity| Arc::clone(&identity.leaf));
        let peer = PeerInfo::new(state, server_name, trust == Trust::Validated);
        Ok(peer.with_local(local))
    }
}

/// Stands for "no server name": the library never sends addresses as SNI.
const NO_NAME: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl From<HandshakeError> for ConnectError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(refused) => HandshakeError::new(refused).into(),
            Err(broken) => Self::Io(broken),
        }
    }
}
