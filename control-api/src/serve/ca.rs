//! Istio's service that signs certificates: whoever proves to be a workload gets one for that workload.

mod limit;
mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use certs::{Csr, SpiffeId};
use parking_lot::Mutex;
use prost_types::Struct;
use prost_types::value::Kind;
use tonic::{Request, Response, Status};
use xds::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use xds::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

use self::limit::Limit;
pub use self::metrics::CaMetrics;
use super::auth::{Authenticator, Caller, Unauthenticated};
use super::authority::MeshCa;
use super::connection::Peer;

/// Longest request in bytes; a certificate request may have 16 KiB of it.
const MAX_REQUEST: usize = 64 * 1024;
/// In the request's metadata: the identity that a node's agent asks for in place of its own.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// In the request's metadata: which of several authorities is to sign.
const SIGNER: &str = "CertSigner";

/// Signs for workloads.
#[derive(Debug)]
pub struct CertificateService {
    ca: Arc<MeshCa>,
    authenticator: Arc<Authenticator>,
    metrics: CaMetrics,
    limit: Mutex<Limit>,
}

/// The part of a certificate's making that failed, by the names that istiod counts it under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Csr,
    Signing,
    NotReady,
}

impl CertificateService {
    /// A service that signs with `ca` for those whom `authenticator` knows, `per_minute` times for each workload.
    pub fn new(
        ca: Arc<MeshCa>,
        authenticator: Arc<Authenticator>,
        metrics: CaMetrics,
        per_minute: u32,
    ) -> IstioCertificateServiceServer<Self> {
        let limit = Mutex::new(Limit::new(Duration::from_secs(60), per_minute));
        let service = Self { ca, authenticator, metrics, limit };
        IstioCertificateServiceServer::new(service).max_decoding_message_size(MAX_REQUEST)
    }

    /// Who asks: proved, or claimed in the request itself where that is enough.
    fn caller(
        &self,
        request: &Request<IstioCertificateRequest>,
        csr: &Result<Csr, certs::Error>,
    ) -> Result<Caller, Unauthenticated> {
        let peer = request.extensions().get::<Peer>().ok_or(Unauthenticated::Nothing)?;
        let proved = self.authenticator.caller(peer, request.metadata(), SystemTime::now());
        let Err(Unauthenticated::Nothing) = proved else { return proved };
        let id = csr.as_ref().ok().and_then(|csr| csr.uris().first()?.parse::<SpiffeId>().ok());
        id.and_then(|id| self.authenticator.claim(peer, id)).ok_or(Unauthenticated::Nothing)
    }

    fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        lifetime: Option<Duration>,
    ) -> Result<Vec<String>, (Failure, certs::Error)> {
        let failure = |error| match error {
            certs::Error::NotValid(_) => (Failure::NotReady, error),
            _ => (Failure::Signing, error),
        };
        self.ca.sign(csr, id, lifetime, SystemTime::now()).map_err(failure)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.requests.inc();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let csr = Csr::from_pem(&request.get_ref().csr);
        let caller = self.caller(&request, &csr).and_then(|caller| {
            // istiod lets trusted agents of nodes do that; there are none here.
            match field(request.get_ref().metadata.as_ref(), IMPERSONATED) {
                Some(_) => Err(Unauthenticated::Token("may not ask for another identity".into())),
                None => Ok(caller),
            }
        });
        let caller = caller.map_err(|error| {
            self.metrics.unauthenticated.inc();
            tracing::warn!(?peer, %error, "a certificate is refused: nobody knows who asks");
            error
        })?;
        let IstioCertificateRequest { csr: _, validity_duration, metadata } = request.into_inner();
        if let Some(signer) = field(metadata.as_ref(), SIGNER) {
            let text =
                format!("there is one signer here, not {signer:?}: unset ISTIO_META_CERT_SIGNER");
            return Err(Status::invalid_argument(text));
        }
        if let Err(wait) = self.limit.lock().admit(&caller.id, Instant::now()) {
            let text =
                format!("too many certificates for {}: wait {} s", caller.id, wait.as_secs() + 1);
            self.metrics.limited.inc();
            return Err(Status::resource_exhausted(text));
        }
        let lifetime = u64::try_from(validity_duration).ok().map(Duration::from_secs);
        let csr = csr.map_err(|error| (Failure::Csr, error));
        match csr.and_then(|csr| self.sign(&csr, &caller.id, lifetime)) {
            Ok(cert_chain) => {
                self.metrics.signed.inc();
                tracing::debug!(?peer, id = %caller.id, proof = ?caller.proof, "certificate signed");
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err((failure, error)) => {
                self.metrics.failed(failure);
                tracing::warn!(?peer, id = %caller.id, %error, "a certificate cannot be signed");
                Err(failure.status(&error))
            }
        }
    }
}

impl Failure {
    fn status(self, error: &certs::Error) -> Status {
        let text = format!("CSR signing error ({error})");
        match self {
            Self::Csr => Status::invalid_argument(text),
            Self::Signing => Status::internal(text),
            Self::NotReady => Status::unavailable(text),
        }
    }
}

/// A text in the request's metadata, unless it is empty.
fn field<'a>(metadata: Option<&'a Struct>, name: &str) -> Option<&'a str> {
    match metadata?.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}
