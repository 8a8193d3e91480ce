//! A mesh as YAML: namespaces of twenty services with two workloads each, and what may be changed in it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

/// Services of a namespace.
const TOGETHER: usize = 20;
/// One service in so many has a DestinationRule and a VirtualService.
const WITH_RULES: usize = 10;
/// Endpoints of a service.
const ENDPOINTS: usize = 2;

/// A mesh in a folder.
pub(crate) struct Mesh {
    /// Where its files are: one for each namespace, and two that are changed.
    pub(crate) folder: PathBuf,
    /// How many services it has.
    pub(crate) services: usize,
    /// Whether each namespace has a `Sidecar` that shows its own services only.
    pub(crate) scoped: bool,
}

/// What is changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// The first service has one endpoint more, or one less.
    Endpoint,
    /// The weights of one route.
    Route,
    /// A setting of every cluster.
    Everything,
}

impl Change {
    /// All of them, by name.
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("endpoint", Self::Endpoint), ("route", Self::Route), ("everything", Self::Everything)];
}

impl Mesh {
    /// Writes all files.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(crate) fn write(&self) -> Result<()> {
        for namespace in 0..self.services.div_ceil(TOGETHER) {
            let services = namespace * TOGETHER..self.services.min((namespace + 1) * TOGETHER);
            let mut text: String = services.map(service).collect();
            if self.scoped {
                write!(
                    text,
                    "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: own, namespace: ns-{namespace}}}\n\
                     spec: {{egress: [{{hosts: [./*]}}]}}\n---\n"
                )?;
            }
            fs::write(self.folder.join(format!("ns-{namespace}.yaml")), text)?;
        }
        self.replace("endpoints.yaml", &slice(0, ENDPOINTS))?;
        self.replace("route.yaml", &route(0, 50))?;
        self.replace("everything.yaml", &everything(10))
    }

    /// Makes a change, another one in each round.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(crate) fn change(&self, change: Change, round: usize) -> Result<()> {
        match change {
            Change::Endpoint => {
                self.replace("endpoints.yaml", &slice(0, ENDPOINTS + 1 + round % 2))
            }
            Change::Route => self.replace("route.yaml", &route(0, 60 + round % 30)),
            Change::Everything => self.replace("everything.yaml", &everything(11 + round)),
        }
    }

    /// The namespace, name and address of a proxy's workload.
    pub(crate) fn workload(&self, proxy: usize) -> (String, String, String) {
        let (service, pod) = (proxy % self.services, proxy / self.services);
        let name = format!("s{service}-{pod}");
        (format!("ns-{}", service / TOGETHER), name, address(service, pod))
    }

    fn replace(&self, name: &str, text: &str) -> Result<()> {
        // As editors do it: never half a file.
        let new = self.folder.join(format!(".{name}"));
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.folder.join(name))?)
    }
}

/// Distinct for up to 60,000 services of up to 250 pods.
fn address(service: usize, pod: usize) -> String {
    format!("10.{}.{}.{}", 1 + service / 250, service % 250, pod + 1)
}

fn service(number: usize) -> String {
    let namespace = format!("ns-{}", number / TOGETHER);
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: {namespace}}}\n\
         spec: {{clusterIP: 172.{}.{}.1, selector: {{app: s{number}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n",
        16 + number / 250,
        number % 250
    );
    for pod in 0..ENDPOINTS {
        text += &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: s{number}-{pod}, namespace: {namespace}, \
             labels: {{app: s{number}, version: v{pod}, security.istio.io/tlsMode: istio}}}}\n\
             spec: {{serviceAccountName: s{number}, containers: [{{name: it, image: it}}]}}\n---\n"
        );
    }
    if number > 0 {
        text += &slice(number, ENDPOINTS);
    }
    if number.is_multiple_of(WITH_RULES) {
        text += &format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s{number}, namespace: {namespace}}}\n\
             spec: {{host: s{number}, subsets: [{{name: v0, labels: {{version: v0}}}}, {{name: v1, labels: {{version: v1}}}}]}}\n---\n"
        );
    }
    if number.is_multiple_of(WITH_RULES) && number > 0 {
        text += &route(number, 50);
    }
    text
}

fn slice(number: usize, endpoints: usize) -> String {
    let endpoints: Vec<String> = (0..endpoints)
        .map(|pod| {
            let address = address(number, pod);
            format!("{{addresses: [{address}], targetRef: {{kind: Pod, name: s{number}-{pod}}}}}")
        })
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: s{number}-1, namespace: ns-{}, labels: {{kubernetes.io/service-name: s{number}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n---\n",
        number / TOGETHER,
        endpoints.join(", ")
    )
}

fn route(number: usize, weight: usize) -> String {
    let to = |subset: &str, weight: usize| {
        format!("{{destination: {{host: s{number}, subset: {subset}}}, weight: {weight}}}")
    };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s{number}, namespace: ns-{}}}\n\
         spec: {{hosts: [s{number}], http: [{{route: [{}, {}]}}]}}\n---\n",
        number / TOGETHER,
        to("v0", weight),
        to("v1", 100 - weight)
    )
}

/// For services that have no rule of their own.
fn everything(seconds: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: all, namespace: istio-system}}\n\
         spec: {{host: '*.cluster.local', trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {seconds}s}}}}}}}}\n---\n"
    )
}
