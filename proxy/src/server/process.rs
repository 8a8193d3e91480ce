//! The running process: workers, admin API and discovery brought up in order, then orders and signals obeyed until the end.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::control::{Control, Order};
use super::heap;
use super::jwks;
use super::logs;
use super::options::Options;
use super::runtime::{self, Handle};
use super::sending::Sending;
use super::shutdown::{self, Signals};
use super::spans;
use crate::admin::access_log::AdminLog;
use crate::admin::server_info::{CommandLine, ServerInfo};
use crate::admin::{self, AdminState, Drain};
use crate::call::Caller;
use crate::cluster::{self, Clusters, LocalClusters, Place, health_check};
use crate::config::bootstrap::{Bootstrap, Node};
use crate::config::format::millis;
use crate::config::{self, Invalid};
use crate::discovery::{Assembler, Unpublished};
use crate::dns::caches::Caches;
use crate::drain;
use crate::jwt::remote::{RemoteKeys, RemoteSets};
use crate::listener::manager::{CannotListen, Manager};
use crate::net::socket::{ListenOptions, listen_alone};
use crate::overload::Overload;
use crate::snapshot::{Snapshot, SnapshotCell};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::reporter::Outbox;
use crate::worker::Shared;

/// How long the last access-log lines get to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long the last access-log records and spans get to be sent.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// How long the admin API's last answers get to be read.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Connections to the admin API that the kernel holds until they are accepted.
const ADMIN_BACKLOG: i32 = 1024;

/// Serves until the process is told to end, and drains.
///
/// # Errors
/// What keeps it from starting: an address in use, a refused first configuration.
pub(super) async fn serve(
    options: &Options,
    logging: Logging,
    metrics: Arc<Metrics>,
    assembler: Assembler,
) -> Result<()> {
    let started = Instant::now();
    let mut signals = Signals::take_over().context("cannot take over signals")?;
    let node = node(options, assembler.bootstrap());
    let (shared, chores) = share(&metrics, assembler.bootstrap(), &node, options.drain_time())?;
    let (trigger, watch) = drain::channel();
    // Every worker holds a sender: when the last is gone, all have served their last connection.
    let (busy, mut idle) = mpsc::channel::<()>(1);
    let spawn = |id| runtime::spawn(id, shared.clone(), watch.clone(), busy.clone());
    let workers: Vec<Handle> = (0..options.workers())
        .map(spawn)
        .collect::<std::io::Result<_>>()
        .context("cannot start the workers")?;
    drop(busy);
    let commands = workers.iter().map(|worker| worker.commands.clone()).collect();
    let manager = Arc::new(Mutex::new(Manager::new(commands, Arc::clone(&metrics))));
    let (control, mut orders) = Control::new(Arc::clone(&manager), &shared);
    metrics.server().concurrency.set(i64::try_from(workers.len()).unwrap_or(i64::MAX));
    let info = info(options, node.clone(), workers.len(), started);
    let locality = <[String; 3]>::from(info.node.locality.clone());
    let admin = start_admin(options, &assembler, logging, info, &shared, &control).await?;
    let caller = start_caller(&shared);
    let reports = chores.start(&shared, Rc::clone(&caller), node.clone());

    if let Some(cluster) = assembler.bootstrap().local_cluster.clone() {
        shared.clusters.settle(Place { cluster, locality });
    }
    let mut publish = publisher(&shared, &manager);
    let warm = async |snapshot: Arc<Snapshot>| check_hosts(&shared.clusters, &snapshot).await;
    let assembler = assembler
        .keeping_hosts_of(Arc::clone(&shared.clusters))
        .keeping_configuration_in(options.config_cache_dir.clone());
    let discovery = assembler.run(caller, &node, &mut publish, warm, || {
        tracing::info!(workers = workers.len(), "all listeners are open, serving");
        metrics.server().initialization_time.record(millis(started.elapsed()));
        metrics.server().workers_started.set(1);
        control.went_live();
    });
    let reason = tokio::select! {
        refused = discovery => match refused {
            Err(errors) => return Err(super::refused(&errors)),
        },
        reason = obey(&mut orders, &manager, options.drain_time()) => reason,
        signal = signals.next() => signal,
    };
    tracing::info!(reason, "draining");
    control.began_to_drain();
    let served = async { while idle.recv().await.is_some() {} };
    shutdown::drain(&trigger, options.drain_time(), &mut signals, served).await;
    join(workers);
    write_last(&shared, reports).await;
    if let Some(admin) = admin {
        admin.end().await;
    }
    tracing::info!("everything is served, exiting");
    Ok(())
}

/// Waits until all workers have served their last connection.
fn join(workers: Vec<Handle>) {
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("a worker ended in a panic");
        }
    }
}

/// Lets what is logged and reported last reach its files and collectors.
async fn write_last(shared: &Shared, reports: Reports) {
    if !shared.access_log.flush(LAST_LINES).await {
        tracing::warn!("the last access-log lines could not be written in time");
    }
    let Reports { records, spans } = reports;
    let records = async {
        if let Some(records) = records {
            records.end(LAST_REPORTS).await;
        }
    };
    tokio::join!(records, spans.end(LAST_REPORTS));
}

/// Begins to check hosts, and waits for the first result of each.
async fn check_hosts(clusters: &Arc<Clusters>, snapshot: &Snapshot) {
    clusters.publish(&snapshot.clusters);
    let (begun, mut first_round) = mpsc::channel(1);
    tokio::task::spawn_local(health_check::run(Arc::clone(clusters), begun));
    while first_round.recv().await.is_some() {}
}

/// The admin API while it serves.
struct Admin {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Admin {
    /// Lets answers that are being written reach their readers: that to `/quitquitquit` is one of them.
    async fn end(self) {
        drop(self.stop);
        if tokio::time::timeout(LAST_ANSWERS, self.task).await.is_err() {
            tracing::debug!("somebody still holds a connection to the admin API");
        }
    }
}

/// What the workers share, and what is to be done for it beside the requests of clients.
fn share(
    metrics: &Arc<Metrics>,
    bootstrap: &Bootstrap,
    node: &Node,
    drain_time: Duration,
) -> Result<(Shared, Chores)> {
    let overload = Arc::new(Overload::new(bootstrap.overload.clone(), descriptors()));
    metrics.register(Arc::clone(&overload) as _);
    let access_log = AccessLogger::start(Arc::clone(metrics));
    let access_log = access_log.context("cannot start the access-log writer")?;
    let clusters = Clusters::new(Arc::clone(metrics)).logging_events(access_log.clone());
    let clusters = Arc::new(clusters);
    metrics.register(Arc::clone(&clusters) as _);
    let (jwks, wanted_keys) = RemoteSets::new();
    let (reporters, outboxes) = spans::reporters(node, bootstrap, metrics);
    let shared = Shared {
        dns_caches: Arc::new(Caches::new(Arc::clone(metrics))),
        jwks,
        snapshots: Arc::new(SnapshotCell::new(Snapshot::default())),
        clusters,
        metrics: Arc::clone(metrics),
        access_log,
        drain_time,
        overload,
        fails_health_checks: Arc::default(),
        local_limits: Arc::default(),
        service_cluster: node.cluster.as_str().into(),
        strip_fragments: bootstrap.strip_fragments,
        reporters,
    };
    Ok((shared, Chores { wanted_keys, outboxes }))
}

/// What goes on beside the requests of clients.
struct Chores {
    wanted_keys: UnboundedReceiver<Weak<RemoteKeys>>,
    outboxes: UnboundedReceiver<Outbox>,
}

/// What sends reports to collectors.
struct Reports {
    records: Option<Sending>,
    spans: Sending,
}

impl Chores {
    /// Starts all of it, in the name of `node`.
    fn start(self, shared: &Shared, caller: Rc<Caller>, node: Node) -> Reports {
        tokio::spawn(cluster::run_sweeps(Arc::clone(&shared.clusters)));
        tokio::spawn(Arc::clone(&shared.overload).watch());
        tokio::spawn(heap::keep_giving_back());
        let metrics = Arc::clone(&shared.metrics);
        let outboxes = shared.access_log.outboxes();
        let records = outboxes.map(|outboxes| logs::send(outboxes, Rc::clone(&caller), node));
        let fetching = jwks::keep_fetching(self.wanted_keys, Rc::clone(&caller), metrics);
        tokio::task::spawn_local(fetching);
        Reports { records, spans: spans::send(self.outboxes, caller) }
    }
}

/// Lets this thread send requests to clusters.
fn start_caller(shared: &Shared) -> Rc<Caller> {
    let clusters = Rc::new(LocalClusters::new(Arc::clone(&shared.clusters)));
    let caller = Rc::new(Caller::new(clusters, &shared.snapshots));
    let (following, snapshots) = (Rc::clone(&caller), Arc::clone(&shared.snapshots));
    tokio::task::spawn_local(async move { following.keep_following(&snapshots).await });
    caller
}

/// How many files this process may have open, once it has asked for as many as it may have.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX)
}

/// What makes a linked snapshot the one that is served: bind what is new, publish, close what is gone.
fn publisher(
    shared: &Shared,
    manager: &Arc<Mutex<Manager>>,
) -> impl FnMut(&Arc<Snapshot>) -> Result<(), Unpublished> + Send {
    let (shared, manager) = (shared.clone(), Arc::clone(manager));
    move |snapshot| {
        let mut manager = manager.lock();
        let prepared = manager
            .prepare(snapshot)
            .map_err(|CannotListen { listener, error }| Unpublished { listener, error })?;
        shared.clusters.publish(&snapshot.clusters);
        shared.jwks.publish(snapshot.remote_jwks());
        shared.dns_caches.publish(snapshot.dns_caches().into_iter(), &snapshot.resolver);
        shared.snapshots.store(Arc::clone(snapshot));
        manager.commit(snapshot, prepared);
        Ok(())
    }
}

/// Obeys orders until one ends the process.
async fn obey(
    orders: &mut UnboundedReceiver<Order>,
    manager: &Arc<Mutex<Manager>>,
    drain_time: Duration,
) -> &'static str {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Quit => return "/quitquitquit",
            Order::Drain(drain) => drain_listeners(drain, manager, drain_time),
        }
    }
    "nobody is left to give orders"
}

fn drain_listeners(drain: Drain, manager: &Arc<Mutex<Manager>>, drain_time: Duration) {
    if !drain.graceful {
        manager.lock().stop_all(drain.inbound_only);
        return;
    }
    manager.lock().drain_all(drain.inbound_only);
    if !drain.skip_exit {
        let manager = Arc::clone(manager);
        tokio::spawn(async move {
            tokio::time::sleep(drain_time).await;
            manager.lock().stop_all(drain.inbound_only);
        });
    }
}

fn listen(config: &config::bootstrap::Admin) -> std::io::Result<TcpListener> {
    let options = ListenOptions {
        backlog: ADMIN_BACKLOG,
        ipv4_compat: config.ipv4_compat,
        ..ListenOptions::default()
    };
    TcpListener::from_std(listen_alone(config.address, &options)?)
}

/// Tries the admin API's access logs.
pub(super) fn check_admin_logs(assembler: &Assembler) -> Result<()> {
    let logs = assembler.bootstrap().admin.iter().flat_map(|admin| &admin.access_logs);
    for (index, log) in logs.enumerate() {
        let Some(sink) = log.sink() else { continue };
        AccessLogger::check(sink).map_err(|error| {
            let path = format!("admin.access_log[{index}].typed_config.path");
            let reason = format!("cannot be opened for appending: {error}");
            super::refused(&[assembler.locate(Invalid::new(path, reason))])
        })?;
    }
    Ok(())
}

async fn start_admin(
    options: &Options,
    assembler: &Assembler,
    logging: Logging,
    info: ServerInfo,
    shared: &Shared,
    control: &Arc<Control>,
) -> Result<Option<Admin>> {
    let Some(config) = &assembler.bootstrap().admin else { return Ok(None) };
    let listener = listen(config).map_err(|error| {
        let reason = format!("cannot listen on {} for the admin API: {error}", config.address);
        super::refused(&[assembler.locate(Invalid::new("admin.address", reason))])
    })?;
    check_admin_logs(assembler)?;
    let log =
        AdminLog { logs: config.access_logs.as_slice().into(), writer: shared.access_log.clone() };
    let address = listener.local_addr()?;
    if let Some(path) = &options.admin_address_path {
        std::fs::write(path, address.to_string())
            .with_context(|| format!("--admin-address-path {}", path.display()))?;
    }
    let state = AdminState {
        info: Arc::new(info),
        metrics: Arc::clone(&shared.metrics),
        shown_stats: Arc::new(assembler.bootstrap().shown_stats.clone()),
        logging,
        access_logs: shared.access_log.clone(),
        control: Arc::clone(control) as _,
        clusters: Arc::clone(&shared.clusters),
        snapshots: Arc::clone(&shared.snapshots),
        configuration: assembler.dump(),
    };
    tracing::info!(%address, "admin API");
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        if let Err(error) = admin::serve(listener, state, log, stopped).await {
            tracing::error!(%error, "the admin API ended");
        }
    });
    Ok(Some(Admin { stop, task }))
}

/// Who this process is: as its bootstrap says, unless its command line does.
fn node(options: &Options, bootstrap: &Bootstrap) -> Node {
    let given = |over: &Option<String>, or: &str| over.clone().unwrap_or_else(|| or.to_owned());
    let node = &bootstrap.node;
    let (region, zone, sub_zone) = node.locality.clone();
    Node {
        id: given(&options.service_node, &node.id),
        cluster: given(&options.service_cluster, &node.cluster),
        locality: (region, given(&options.service_zone, &zone), sub_zone),
        metadata: node.metadata.clone(),
    }
}

fn info(options: &Options, node: Node, workers: usize, started: Instant) -> ServerInfo {
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    let options = CommandLine {
        base_id: options.base_id.to_string(),
        concurrency: workers,
        config_path: path(&options.config_path),
        config_yaml: options.config_yaml.clone().unwrap_or_default(),
        admin_address_path: path(&options.admin_address_path),
        log_level: options.log_level.clone(),
        component_log_level: options.component_log_level.clone(),
        log_format: options.log_format.clone(),
        log_path: path(&options.log_path),
        service_cluster: node.cluster.clone(),
        service_node: node.id.clone(),
        service_zone: node.locality.1.clone(),
        drain_time: format!("{}s", options.drain_time_s),
        mode: "Serve".to_owned(),
        disable_hot_restart: true,
    };
    ServerInfo { started, node, options }
}
