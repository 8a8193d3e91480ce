//! What sidecars have counted of the calls between workloads, as their admin APIs tell it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use serde_json::Value;
use tokio::task::JoinSet;

use super::shares::{self, Share};
use super::workloads::Workload;
use crate::services::outbound::Outbound;

/// How long an admin API may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who calls whom, by which way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Calls {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) service: String,
    pub(super) subset: String,
    pub(super) port: String,
}

/// What was counted of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Figure {
    pub(super) requests: u64,
    /// Answers below 500.
    pub(super) good: u64,
    /// Answers from 500, and requests without any.
    pub(super) bad: u64,
    /// Connections, and the TLS handshakes that were completed on them.
    pub(super) connections: u64,
    pub(super) handshakes: u64,
    /// What the routes in force say.
    pub(super) shares: Vec<Share>,
}

impl Figure {
    /// Whether there is TLS on every connection.
    pub(super) fn is_tls(&self) -> bool {
        self.handshakes > 0 && self.handshakes >= self.connections
    }
}

/// What all proxies say now; one that does not answer says nothing.
pub(super) async fn of(admin: &Arc<Outbound>, workloads: &[Workload]) -> BTreeMap<Calls, Figure> {
    let names: Arc<BTreeMap<IpAddr, String>> =
        Arc::new(workloads.iter().map(|it| (it.pod.ip(), it.name.clone())).collect());
    let mut asked = JoinSet::new();
    for workload in workloads {
        let (admin, names, workload) = (Arc::clone(admin), Arc::clone(&names), workload.clone());
        asked.spawn(async move { of_one(&admin, &workload, &names).await.unwrap_or_default() });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

async fn of_one(
    admin: &Outbound,
    workload: &Workload,
    names: &BTreeMap<IpAddr, String>,
) -> anyhow::Result<Vec<(Calls, Figure)>> {
    let get = async |path: &str| {
        admin.get(&format!("http://{}{path}", workload.admin), HeaderMap::new(), PATIENCE).await
    };
    let clusters = get("/clusters?format=json").await?;
    let stats = get("/stats?format=json&usedonly&filter=cluster.outbound").await?;
    let shares = shares::of(&get("/config_dump?resource=dynamic_route_configs").await?);
    let stats: BTreeMap<&str, u64> = list(&stats["stats"])
        .filter_map(|stat| Some((stat["name"].as_str()?, stat["value"].as_u64()?)))
        .collect();
    let mut figures = Vec::new();
    for cluster in list(&clusters["cluster_statuses"]) {
        let name = cluster["name"].as_str().unwrap_or_default();
        let &["outbound", port, subset, host] = name.split('|').collect::<Vec<_>>().as_slice()
        else {
            continue;
        };
        let counted = |what: &str| {
            let of = cluster["observability_name"].as_str().unwrap_or(name);
            stats.get(&*format!("cluster.{of}.{what}")).copied().unwrap_or_default()
        };
        let failed = counted("upstream_cx_connect_fail");
        for endpoint in list(&cluster["host_statuses"]) {
            let counted_here = |what: &str| {
                let stat = list(&endpoint["stats"]).find(|it| it["name"] == what);
                let value = stat.and_then(|it| it["value"].as_str()?.parse().ok());
                value.unwrap_or_default()
            };
            let address = endpoint["address"]["socket_address"]["address"].as_str();
            let address = address.unwrap_or_default();
            let to = address.parse().ok().and_then(|ip| names.get(&ip).cloned());
            let figure = Figure {
                requests: counted_here("rq_total"),
                good: counted_here("rq_success"),
                bad: counted_here("rq_error"),
                connections: counted("upstream_cx_total").saturating_sub(failed),
                handshakes: counted("ssl.handshake"),
                shares: shares.get(name).cloned().unwrap_or_default(),
            };
            let calls = Calls {
                from: workload.name.clone(),
                to: to.unwrap_or_else(|| address.to_owned()),
                service: host.split('.').next().unwrap_or(host).to_owned(),
                subset: subset.to_owned(),
                port: port.to_owned(),
            };
            if figure.requests > 0 {
                figures.push((calls, figure));
            }
        }
    }
    Ok(figures)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
