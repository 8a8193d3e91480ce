//! A control plane in this process, with a mesh made of text.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_api::model::Mesh;
use control_api::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use control_api::model::object::{SourceFile, read_file};
use control_api::serve::ads::{self, Limits};
use control_api::serve::authority::MeshCa;
use control_api::serve::connection::accepted;
use control_api::serve::{ControlPlane, Setup, pushes, secret_discovery, status};
use control_api::source::ObjectSet;
use control_api::validate;
use tokio::net::TcpListener;
use tonic::transport::Server;
use xds::envoy::config::core::v3::Node;

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane that serves.
pub(crate) struct Plane {
    pub(crate) shared: Arc<ControlPlane>,
    pub(crate) xds: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::of(Setup { limits, ..Setup::default() }, None).await
    }

    /// One of these parts; with an authority it speaks TLS.
    pub(crate) async fn of(setup: Setup, ca: Option<Arc<MeshCa>>) -> Self {
        let shared = ControlPlane::new(setup).unwrap();
        let xds = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plane =
            Self { shared, xds: xds.local_addr().unwrap(), http: http.local_addr().unwrap() };
        let router = Server::builder().add_service(ads::service(&plane.shared));
        let router = router.add_service(secret_discovery::service(&plane.shared));
        tokio::spawn(router.serve_with_incoming(accepted(xds, ca)));
        tokio::spawn(status::serve(Arc::clone(&plane.shared), http));
        tokio::spawn(pushes::follow(Arc::clone(&plane.shared)));
        plane
    }

    /// Serves this mesh; returns its number.
    pub(crate) fn publish(&self, text: &str) -> u64 {
        let file = SourceFile::new(Path::new("mesh.yaml"), text.to_owned());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let objects: Vec<_> = objects.map(|it| Arc::new(it.unwrap())).collect();
        let set = ObjectSet { objects: objects.clone(), failures: Vec::new() };
        let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
        let findings = validate::everything(&set, &mesh);
        self.shared.publish(mesh, findings, Instant::now()).number
    }

    /// Waits until so many proxies are connected, and all of them have accepted the mesh.
    pub(crate) async fn settled(&self, mesh: u64, proxies: usize) {
        let what = format!("{proxies} proxies with mesh {mesh}");
        eventually(&what, || self.shared.fleet().settled(mesh) == (proxies, proxies)).await;
    }

    /// A statistic, with its labels if it has some; 0 if there is none.
    pub(crate) fn count(&self, name: &str) -> f64 {
        let text = self.shared.metrics().text().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().unwrap())
    }
}

/// Polls until something holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "no {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A node of namespace `shop`.
pub(crate) fn node(name: &str, address: &str) -> Node {
    let id = format!("sidecar~{address}~{name}.shop~shop.svc.cluster.local");
    Node { id, ..Node::default() }
}

/// A service of namespace `shop` on port 80, with these addresses.
pub(crate) fn service(name: &str, addresses: &[&str]) -> String {
    let endpoints: String = addresses.iter().map(|it| format!("- addresses: [{it}]\n")).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.1.1.1, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n{endpoints}---\n"
    )
}

/// The cluster of a service.
pub(crate) fn cluster(name: &str) -> String {
    format!("outbound|80||{name}.shop.svc.cluster.local")
}
