//! What the benches share: a configuration text made ready to serve, without files or sockets.

#![expect(clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::sync::Arc;
use std::time::Duration;

use proxy::cluster::{ClusterSpec, Clusters};
use proxy::config::Name;
use proxy::config::bootstrap::Bootstrap;
use proxy::config::cluster::{Cluster, Discovery};
use proxy::config::http::RouteSource;
use proxy::config::listener;
use proxy::discovery::decode;
use proxy::dns::caches::Caches;
use proxy::filter_chain::FilterChainMatcher;
use proxy::overload::Overload;
use proxy::route::RouteTable;
use proxy::snapshot::{FilterChain, Http, Listener, Snapshot, SnapshotCell, Terminal};
use proxy::telemetry::access_log::AccessLogger;
use proxy::telemetry::metrics::Metrics;
use proxy::telemetry::trace::{Identity, Reporters};
use proxy::worker::Shared;
use xds::yaml::Document;

/// The snapshot of a bootstrap whose resources are all static, without TLS.
///
/// # Panics
/// If the text is no such bootstrap.
pub fn snapshot(bootstrap: &str) -> Snapshot {
    let bootstrap = Document::new("bootstrap", bootstrap).read().expect("a bootstrap");
    let Bootstrap { listeners, clusters, .. } =
        decode::bootstrap(&bootstrap).expect("a supported bootstrap");
    Snapshot {
        version: 1,
        listeners: listeners
            .into_iter()
            .map(|config| (Arc::clone(&config.name), Arc::new(listener(config))))
            .collect(),
        clusters: clusters
            .into_iter()
            .map(|config| (Arc::clone(&config.name), Arc::new(cluster(config))))
            .collect(),
        ..Snapshot::default()
    }
}

fn listener(config: Arc<listener::Listener>) -> Listener {
    let rules: Vec<_> = config.filter_chains.iter().map(|chain| &chain.matcher).collect();
    let matcher = FilterChainMatcher::compile(&rules).expect("distinct rules");
    let chains = config.filter_chains.iter().map(|config| Arc::new(chain(config))).collect();
    Listener { config, matcher, chains, default_chain: None }
}

fn chain(config: &Arc<listener::FilterChain>) -> FilterChain {
    let manager = config.http().expect("a connection manager");
    let RouteSource::Inline(routes) = &manager.routes else { panic!("routes must be inline") };
    let table = RouteTable::compile(Arc::clone(routes)).expect("a table without conflicts");
    let http = Arc::new(Http::new(Arc::clone(manager), Some(Arc::new(table))));
    FilterChain {
        config: Arc::clone(config),
        tls: None,
        limiters: Vec::new(),
        rates: Vec::new(),
        terminal: Terminal::Http(http),
    }
}

fn cluster(config: Arc<Cluster>) -> ClusterSpec {
    let Discovery::Static(assignment) = &config.discovery else { panic!("must be STATIC") };
    let assignment = Arc::clone(assignment);
    ClusterSpec { config, assignment, tls: None, match_tls: Vec::new() }
}

/// What the workers of a process that serves `snapshot` share.
///
/// # Panics
/// If no thread can be started.
pub fn shared(snapshot: Snapshot) -> Shared {
    let metrics = Arc::new(Metrics::default());
    let clusters = Arc::new(Clusters::new(Arc::clone(&metrics)));
    clusters.publish(&snapshot.clusters);
    let nobody = Name::from("");
    let identity = Identity {
        node: nobody.clone(),
        cluster: nobody.clone(),
        zone: nobody,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    // Nobody takes the spans: the queue fills up, and what does not fit is dropped.
    let (reporters, _) = Reporters::new(identity, Default::default(), Arc::clone(&metrics));
    Shared {
        snapshots: Arc::new(SnapshotCell::new(snapshot)),
        clusters,
        dns_caches: Arc::new(Caches::new(Arc::clone(&metrics))),
        jwks: proxy::jwt::remote::RemoteSets::new().0,
        access_log: AccessLogger::start(Arc::clone(&metrics)).expect("a thread"),
        metrics,
        drain_time: Duration::from_secs(600),
        overload: Arc::new(Overload::new(Default::default(), 1 << 16)),
        fails_health_checks: Arc::default(),
        local_limits: Arc::default(),
        service_cluster: "benches".into(),
        strip_fragments: false,
        reporters,
    }
}
