//! The options that say who signs for the mesh, and whom the control plane believes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use certs::{Authority, CaFiles, Lifetimes};
use clap::Args;
use prometheus::Registry;
use tokio::sync::watch;
use tonic::transport::server::Router;

use crate::serve::ControlPlane;
use crate::serve::access::Access;
use crate::serve::auth::{AUDIENCE, Authenticator, ServiceAccountTokens};
use crate::serve::authority::MeshCa;
use crate::serve::ca::{CaMetrics, CertificateService};
use crate::serve::sds::Secrets;

/// How often the authority's files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Who signs, and who is believed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Identities")]
pub(super) struct Trust {
    /// The folder of the authority that signs for workloads, with files as in Istio's secret `cacerts`; an empty folder
    /// gets a new root. Turns TLS on
    #[arg(long, value_name = "FOLDER")]
    ca_dir: Option<PathBuf>,

    /// Where proxies connect with TLS, and agents ask for certificates
    #[arg(long, default_value = "127.0.0.1:15012", value_name = "ADDRESS", requires = "ca_dir")]
    pub(super) xds_tls: SocketAddr,

    /// Names by which this control plane is reached, beside those that Istio's agents use
    #[arg(long = "name", value_name = "NAME", requires = "ca_dir")]
    names: Vec<String>,

    /// Accepted tokens with whose they are: lines `TOKEN,system:serviceaccount:NAMESPACE:NAME`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Keys of Kubernetes' service-account tokens, as a JSON Web Key Set or PEM
    #[arg(long, value_name = "FILE")]
    token_keys: Option<PathBuf>,

    /// Who makes those tokens
    #[arg(long, default_value = "https://kubernetes.default.svc", value_name = "URL")]
    token_issuer: String,

    /// For development: callers on this machine are whoever they say, without proof
    #[arg(long)]
    trust_claims: bool,

    /// The cluster that callers say they are in
    #[arg(long, default_value = "Kubernetes", value_name = "NAME")]
    cluster_id: String,

    /// Certificates that a workload may ask for in a minute
    #[arg(long, default_value_t = 60, value_name = "NUMBER")]
    certificates_per_minute: u32,
}

impl Trust {
    /// The authority, if there is to be one.
    pub(super) fn authority(&self) -> Result<Option<Arc<MeshCa>>> {
        let Some(folder) = &self.ca_dir else { return Ok(None) };
        let files = CaFiles::within(folder);
        if !files.certificate.exists() && !files.key.exists() {
            std::fs::create_dir_all(folder)?;
            let made = Authority::self_signed("outrigger").and_then(|root| files.write(&root));
            made.with_context(|| format!("cannot make a root in {}", folder.display()))?;
            tracing::info!("a new root of trust is in {}", folder.display());
        }
        let ca = MeshCa::open(files, Lifetimes::default(), self.names.clone());
        Ok(Some(Arc::new(ca.with_context(|| format!("--ca-dir {}", folder.display()))?)))
    }

    /// Whom the control plane believes, and what they get.
    pub(super) fn access(
        &self,
        ca: Option<&Arc<MeshCa>>,
        trust_domain: String,
        registry: &Registry,
    ) -> Result<Access> {
        if self.trust_claims {
            tracing::warn!(
                "--trust-claims: every process on this machine can be any workload of the mesh"
            );
        }
        let service_accounts = self.token_keys.clone().map(|keys| ServiceAccountTokens {
            issuer: self.token_issuer.clone(),
            audiences: vec![AUDIENCE.to_owned()],
            keys,
        });
        let authenticator = Authenticator {
            trust_domain,
            cluster_id: self.cluster_id.clone(),
            token_file: self.token_file.clone(),
            service_accounts,
            trusts_claims: self.trust_claims,
        };
        Ok(Access {
            authenticator: Arc::new(authenticator),
            secrets: Secrets::new(ca.cloned(), registry)?,
            renewed: watch::Sender::default(),
        })
    }

    /// Adds the service that signs certificates.
    pub(super) fn with_certificates(
        &self,
        router: Router,
        ca: &Arc<MeshCa>,
        access: &Access,
        metrics: CaMetrics,
    ) -> Router {
        metrics.note_expiry(&ca.current());
        let service = CertificateService::new(
            Arc::clone(ca),
            Arc::clone(&access.authenticator),
            metrics,
            self.certificates_per_minute,
        );
        router.add_service(service)
    }
}

/// Follows the authority's files: another root is trusted by every proxy before it signs.
pub(super) async fn follow(ca: Arc<MeshCa>, plane: Arc<ControlPlane>, metrics: CaMetrics) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let lacking = |bundle| plane.fleet().lacking(bundle);
        let read = ca.reload();
        let went = ca.proceed(SystemTime::now(), lacking);
        metrics.note_expiry(&ca.current());
        if let Ok(true) = went {
            plane.renew_secrets();
        }
        match read.and(went) {
            Ok(_) => said.clear(),
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::error!(%error, "the authority's files cannot be used, the last good ones stay");
                    said = text;
                }
            }
        }
    }
}
