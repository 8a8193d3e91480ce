//! Calls of Istio's certificate service: a connection of its own each time, verified by the files as they are then.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use xds::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

use super::options::AgentOptions;
use crate::config::tls::{
    CommonTls, DataSource, SecretRef, TlsCertificate, TlsVersion, UpstreamTls, ValidationContext,
    ValidationSource,
};
use crate::net::grpc::{self, Frames, Status};
use crate::tls::client::ClientTls;
use crate::tls::secrets::Secrets;
use crate::upstream::http::LocalExecutor;

/// Longest call, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer in bytes.
const LONGEST: usize = 1 << 20;
/// Status code of gRPC: nobody is known to be asking.
const UNAUTHENTICATED: u32 = 16;
/// Status code of gRPC: who asks may not.
const PERMISSION_DENIED: u32 = 7;

/// Where certificates are signed.
pub(super) struct CaService {
    /// Host and port.
    address: String,
    server_name: String,
    roots: PathBuf,
    cluster_id: HeaderValue,
}

/// What proves who asks.
pub(super) enum Proof {
    /// The token of a service account.
    Token(String),
    /// A certificate of the mesh, in PEM.
    Certificate { chain: String, key: String },
}

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    /// What to check.
    pub(super) text: String,
    code: Option<u32>,
}

impl Failure {
    /// Whether another proof may help.
    pub(super) fn is_about_the_caller(&self) -> bool {
        matches!(self.code, Some(UNAUTHENTICATED | PERMISSION_DENIED))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { text: format!("{error:#}"), code: None }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { text: format!("the CA refuses: {status}"), code: Some(status.code) }
    }
}

impl CaService {
    /// The service at `address`, `HOST:PORT`.
    ///
    /// # Errors
    /// If the address or the cluster's id cannot be one.
    pub(super) fn new(options: &AgentOptions, address: String) -> Result<Self> {
        let (host, port) = address.rsplit_once(':').unwrap_or((address.as_str(), ""));
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(anyhow!("CA_ADDR {address:?} is not HOST:PORT"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            server_name: options.ca_server_name.clone().filter(|it| !it.is_empty()).unwrap_or(host),
            roots: options.roots_path()?,
            cluster_id: HeaderValue::from_str(&options.cluster_id)
                .context("ISTIO_META_CLUSTER_ID")?,
            address,
        })
    }

    /// Has the request `csr` (PEM) signed, for this long. The answer begins with the leaf.
    pub(super) async fn create_certificate(
        &self,
        csr: &str,
        lifetime: Duration,
        proof: &Proof,
    ) -> Result<Vec<String>, Failure> {
        let message = IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: None,
        };
        let late = |_| anyhow!("{}: no answer within {TIMEOUT:?}", self.address);
        let calling = tokio::time::timeout(TIMEOUT, self.call(&message, proof)).await;
        Ok(calling.map_err(late)??.cert_chain)
    }

    async fn call(
        &self,
        message: &IstioCertificateRequest,
        proof: &Proof,
    ) -> Result<IstioCertificateResponse, Failure> {
        let tls = self.tls(proof)?;
        let place = || format!("cannot reach the CA at {}", self.address);
        let stream = TcpStream::connect(&self.address).await.with_context(place)?;
        let name = self.server_name.as_str();
        let (stream, _) =
            tls.connect(stream, Some(name), None, &["h2"]).await.with_context(|| {
                format!(
                    "{}: check {} (CA_ROOT_CA) and the name {name} (ISTIOD_SAN)",
                    place(),
                    self.roots.display()
                )
            })?;
        let handshake = hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream));
        let (mut sender, driver) = handshake.await.with_context(place)?;
        let driver = tokio::task::spawn_local(driver);
        let answer = async {
            let response = sender.send_request(self.request(message, proof)?).await;
            read(response.with_context(place)?).await
        };
        let answer = answer.await;
        driver.abort();
        answer
    }

    fn request(
        &self,
        message: &IstioCertificateRequest,
        proof: &Proof,
    ) -> Result<Request<Full<bytes::Bytes>>> {
        const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
        let uri = format!("https://{}{PATH}", self.server_name_as_authority());
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(uri)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header("grpc-timeout", grpc::timeout(TIMEOUT))
            .header("clusterid", self.cluster_id.clone());
        if let Proof::Token(token) = proof {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .context("the token has bytes that no header may have")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request.body(Full::new(grpc::frame(message)))?)
    }

    fn server_name_as_authority(&self) -> String {
        let name = &self.server_name;
        if name.contains(':') { format!("[{name}]") } else { name.clone() }
    }

    /// TLS that takes the CA's roots and the server's name seriously, and shows a certificate if that is the proof.
    fn tls(&self, proof: &Proof) -> Result<ClientTls> {
        let inline = |pem: &String| DataSource::Inline(pem.clone().into_bytes());
        let certificates = match proof {
            Proof::Token(_) => Vec::new(),
            Proof::Certificate { chain, key } => {
                vec![SecretRef::Inline(TlsCertificate { chain: inline(chain), key: inline(key) })]
            }
        };
        let validation = ValidationContext {
            trusted_ca: Some(DataSource::File(self.roots.clone())),
            ..ValidationContext::default()
        };
        let context = UpstreamTls {
            common: CommonTls {
                min_version: TlsVersion::V1_2,
                max_version: TlsVersion::V1_3,
                cipher_suites: Vec::new(),
                alpn: Vec::new(),
                certificates,
                validation: Some(ValidationSource::Single(SecretRef::Inline(validation))),
                key_log: None,
            },
            sni: None,
            auto_host_sni: false,
            auto_sni_san_validation: true,
        };
        // The files are read now: what was replaced since the last call counts.
        let built = ClientTls::build(&context, &Secrets::default());
        built.map_err(|error| anyhow!("TLS to the CA: {}; check CA_ROOT_CA", error.reason))
    }
}

/// The one message of an answer, if its status is good.
async fn read(
    response: http::Response<hyper::body::Incoming>,
) -> Result<IstioCertificateResponse, Failure> {
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK || !grpc::is_grpc(head.headers.get(CONTENT_TYPE)) {
        return Err(Status::of_http(head.status).into());
    }
    if let Some(status) = Status::of(&head.headers) {
        status?;
    }
    let body = Limited::new(body, LONGEST).collect().await;
    let body = body.map_err(|error| anyhow!("the CA's answer broke off: {error}"))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Status::of(&trailers).unwrap_or_else(|| Err(Status::new(Status::UNKNOWN, "no status")))?;
    let mut frames = Frames::new(LONGEST);
    frames.push(&body.to_bytes());
    let message = frames.message()?;
    message.ok_or_else(|| Status::new(Status::INTERNAL, "no message came back").into())
}
