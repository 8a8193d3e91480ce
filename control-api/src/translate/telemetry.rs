//! `Telemetry`: access logs, traces and metrics of a proxy, by the mesh's settings, its namespace's and its own.

mod access_log;
mod metrics;
mod tracing;

use super::attachment::{self, Attached};
use super::proxy::Proxy;
use crate::model::istio::selector::WorkloadMode;
use crate::model::istio::telemetry::{ProviderRef, Telemetry};
use crate::model::{Found, Mesh};

pub use access_log::{access_logs, listener_access_logs};
pub use metrics::{http_stats, network_stats};
pub use tracing::{Traced, tracing};

/// Which side of a proxy something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A sidecar's, towards its workload.
    Inbound,
    /// A sidecar's, away from its workload.
    Outbound,
    /// A gateway's.
    Gateway,
}

impl Class {
    fn mode(self) -> WorkloadMode {
        match self {
            Self::Inbound => WorkloadMode::Server,
            Self::Outbound | Self::Gateway => WorkloadMode::Client,
        }
    }
}

/// What is said of a proxy, each going before those before it: the whole mesh's, the namespace's, the workload's.
fn applicable<'m>(mesh: &'m Mesh, proxy: &Proxy) -> Vec<&'m Telemetry> {
    let root = mesh.config.root_namespace.as_str();
    let of_namespace =
        |namespace: &str| mesh.of_namespace::<Telemetry>(namespace).collect::<Vec<_>>();
    let for_all = |it: &&Found<'m, Telemetry>| {
        let selected = it.spec.selector().is_some_and(|it| !it.match_labels.is_empty());
        !selected && it.spec.targets().is_empty()
    };
    let mut found: Vec<&Telemetry> = Vec::new();
    found.extend(of_namespace(root).iter().find(for_all).map(|it| it.spec));
    let own = of_namespace(&proxy.namespace);
    if proxy.namespace != root {
        found.extend(own.iter().find(for_all).map(|it| it.spec));
    }
    let selected = own.iter().filter(|it| !for_all(it) && attachment::is_for(**it, proxy));
    found.extend(selected.map(|it| it.spec));
    found
}

fn names(providers: &[ProviderRef]) -> Vec<&str> {
    providers.iter().map(|it| it.name.as_str()).collect()
}
