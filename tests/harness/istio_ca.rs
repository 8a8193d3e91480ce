//! Istio's certificate service on a port of its own, with a file of tokens that it takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use certs::{Authority, Lifetimes};
use control_api::serve::auth::Authenticator;
use control_api::serve::authority::MeshCa;
use control_api::serve::ca::{CaMetrics, CertificateService};
use control_api::serve::connection::accepted;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;

/// A running certificate service.
#[derive(Debug)]
pub struct IstioCa {
    /// What it signs with.
    pub ca: Arc<MeshCa>,
    address: SocketAddr,
    registry: Registry,
    dir: TempDir,
    serving: JoinHandle<()>,
}

impl IstioCa {
    /// One that signs for the service account `cart` of namespace `shop`, whose token is `open-sesame`.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("outrigger-ca-").tempdir().unwrap();
        let tokens = dir.path().join("tokens.csv");
        std::fs::write(&tokens, "open-sesame,system:serviceaccount:shop:cart\n").unwrap();
        std::fs::write(dir.path().join("token"), "open-sesame").unwrap();
        let authority = Authority::self_signed("mesh root").unwrap();
        std::fs::write(dir.path().join("root.pem"), authority.trust_pem()).unwrap();
        let ca = Arc::new(MeshCa::of(authority, Lifetimes::default(), Vec::new()).unwrap());
        let registry = Registry::new();
        let authenticator = Authenticator {
            trust_domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            token_file: Some(tokens),
            service_accounts: None,
            trusts_claims: false,
        };
        let metrics = CaMetrics::new(&registry).unwrap();
        let service =
            CertificateService::new(Arc::clone(&ca), Arc::new(authenticator), metrics, 10_000);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = accepted(listener, Some(Arc::clone(&ca)));
        let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
        let serving = tokio::spawn(async { serving.await.unwrap() });
        Self { ca, address, registry, dir, serving }
    }

    /// Where it listens, as `CA_ADDR` has it.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// A file beside it: `token` holds the token, `root.pem` the root.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The options by which a proxy's agent asks this one, as the account it signs for.
    pub fn agent_options(&self) -> Vec<String> {
        let option = |name: &str, value: String| [format!("--{name}"), value];
        [
            option("ca-address", self.address()),
            option("ca-root", self.file("root.pem").display().to_string()),
            option("ca-token", self.file("token").display().to_string()),
            option("workload-namespace", "shop".into()),
            option("service-account", "cart".into()),
        ]
        .concat()
    }

    /// What it has counted as `citadel_server_NAME`.
    pub fn counted(&self, name: &str) -> u64 {
        let name = format!("citadel_server_{name}");
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(prometheus::proto::MetricFamily::get_metric).unwrap_or_default();
        metrics.iter().map(|it| it.get_counter().get_value() as u64).sum()
    }

    /// Closes its port and its connections.
    pub fn stop(&self) {
        self.serving.abort();
    }
}

impl Drop for IstioCa {
    fn drop(&mut self) {
        self.stop();
    }
}
