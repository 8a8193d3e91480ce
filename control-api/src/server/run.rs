//! `outrigger-control run`: a folder of YAML steers the proxies that connect, for as long as it runs.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::Stream;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::Router;

use super::trust;
use crate::analyze::{self, text};
use crate::model::Mesh;
use crate::serve::ads::{self, Limits};
use crate::serve::authority::MeshCa;
use crate::serve::ca::CaMetrics;
use crate::serve::connection::{Connection, accepted};
use crate::serve::debounce::{Debounce, LONGEST, QUIET};
use crate::serve::{ControlPlane, Setup, pushes, secret_discovery, status};
use crate::source::directory::Directory;
use crate::source::settings::Settings;
use crate::source::{ObjectSet, Source};
use crate::validate::code::Level;
use crate::validate::finding::Findings;

/// A client that answers no ping within this is gone.
const PING: Duration = Duration::from_secs(30);
/// Until open connections are cut at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Serve a mesh: proxies connect and get what the YAML says, and every change of it
///
/// Reads Istio, Gateway API and Kubernetes objects from folders and everything below them, says what is wrong with
/// them, and hands every proxy that connects over ADS its clusters, endpoints, listeners and routes. When a file
/// changes, what it changes is sent, and nothing else. A file that cannot be read keeps its last good objects.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    /// Folders and files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// Where proxies connect without TLS: for this machine only, as anyone who reaches it learns the mesh
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDRESS")]
    xds: SocketAddr,

    /// Where status and metrics are served
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "ADDRESS")]
    http: SocketAddr,

    /// The mesh's settings, as in the ConfigMap `istio`
    #[arg(long, visible_alias = "meshConfig", value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// The mesh's networks
    #[arg(long, visible_alias = "networksConfig", value_name = "FILE")]
    mesh_networks: Option<PathBuf>,

    #[command(flatten)]
    trust: trust::Trust,

    /// Seconds without a change after which changes are sent
    #[arg(long, default_value_t = QUIET.as_secs_f64(), value_name = "SECONDS", value_parser = seconds)]
    debounce: f64,

    /// Log lines: a level, or what RUST_LOG may say
    #[arg(long, default_value = "info", env = "RUST_LOG", value_name = "LEVEL")]
    log_level: String,
}

impl Arguments {
    fn directory(&self) -> Directory {
        Directory::new(self.paths.clone()).with_default_namespace(&self.namespace)
    }

    fn settings(&self) -> Settings {
        let (mesh_config, mesh_networks) = (self.mesh_config.clone(), self.mesh_networks.clone());
        Settings { mesh_config, mesh_networks }
    }
}

const HELP: &str = "\
Examples:
  outrigger-control run mesh/                      serve what is below mesh/ to proxies on this machine
  outrigger-control run platform/ networking/ -n shop
                                                   several folders; objects without a namespace are in `shop`
  outrigger-control run mesh/ --ca-dir ca/         with TLS and certificates, by a root that is made in ca/
  outrigger-control analyze mesh/                  only say what is wrong with it

A proxy finds it by its bootstrap:
  node: {id: sidecar~10.0.0.7~reviews-v1.shop~shop.svc.cluster.local}
  dynamic_resources:
    ads_config: {api_type: DELTA_GRPC, transport_api_version: V3,
                 grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]}
    cds_config: {ads: {}, resource_api_version: V3}
    lds_config: {ads: {}, resource_api_version: V3}
and a cluster `xds-grpc` with HTTP/2 to the address of --xds.

While it runs:
  outriggerctl proxy-status                        who is connected, and has accepted what
  curl localhost:15014/                            what else can be asked for
  curl localhost:15014/metrics                     statistics for Prometheus, by istiod's names

It ends at SIGTERM and SIGINT: proxies keep what they have.
Exit code: 0 after a signal, 1 if it cannot serve, 2 for wrong arguments.";

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=LONGEST.as_secs_f64()).contains(&seconds) => Ok(seconds),
        _ => Err(format!("not a number from 0 to {}", LONGEST.as_secs())),
    }
}

/// Serves until a signal comes.
///
/// # Errors
/// An address cannot be listened on, or there is nothing to serve.
pub fn run(arguments: &Arguments) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log_level)
        .with_context(|| format!("--log-level {:?}", arguments.log_level))?;
    let coloured = text::coloured(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    log.with_ansi(coloured).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(arguments, coloured));
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn serve(arguments: &Arguments, coloured: bool) -> Result<()> {
    let (xds, http) = (listen("xds", arguments.xds).await?, listen("http", arguments.http).await?);
    let ca = arguments.trust.authority()?;
    let secure = match &ca {
        Some(ca) => Some((listen("xds-tls", arguments.trust.xds_tls).await?, Arc::clone(ca))),
        None => None,
    };
    let registry = Registry::new();
    let plane = plane(arguments, ca.as_ref(), registry.clone())?;
    let with_tls = match &secure {
        Some((listener, _)) => format!(", with TLS to {}", listener.local_addr()?),
        None => String::new(),
    };
    let (plain, status) = (xds.local_addr()?, http.local_addr()?);
    tracing::info!("proxies connect to {plain}{with_tls}, status at http://{status}/");
    if !plain.ip().is_loopback() {
        tracing::warn!("--xds {plain} is open to other machines, without TLS");
    }

    let mut tasks = JoinSet::new();
    let router = discovery(&plane);
    tasks.spawn(streams(router, accepted(xds, None), Arc::clone(&plane)));
    if let (Some((listener, ca)), Some(access)) = (secure, plane.access()) {
        let router = discovery(&plane);
        let metrics = CaMetrics::new(&registry)?;
        let router = arguments.trust.with_certificates(router, &ca, access, metrics.clone());
        let accepted = accepted(listener, Some(Arc::clone(&ca)));
        tasks.spawn(streams(router, accepted, Arc::clone(&plane)));
        tokio::spawn(trust::follow(ca, Arc::clone(&plane), metrics));
    }
    let web = status::serve(Arc::clone(&plane), http);
    tasks.spawn(async move { web.await.context("serving status") });
    tokio::spawn(pushes::follow(Arc::clone(&plane)));
    tasks.spawn(Publisher::new(Arc::clone(&plane), arguments, coloured).run(sets(arguments)));

    tokio::select! {
        // None of them ends by itself.
        Some(ended) = tasks.join_next() => ended?,
        ended = until_told_to_end() => {
            ended?;
            tracing::info!("ending: proxies keep what they have");
            plane.drain();
            let gone = async {
                let mut news = plane.fleet().news();
                while plane.fleet().settled(0).0 > 0 && news.changed().await.is_ok() {}
            };
            let _ = tokio::time::timeout(DRAIN, gone).await;
            Ok(())
        }
    }
}

async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| {
        format!("cannot listen on --{name} {address}: is another control plane running?")
    })
}

fn plane(
    arguments: &Arguments,
    ca: Option<&Arc<MeshCa>>,
    registry: Registry,
) -> Result<Arc<ControlPlane>> {
    // What cannot be read now is told when it is to be served.
    let mesh = arguments.settings().mesh(&arguments.directory().load()).unwrap_or_default();
    let access = arguments.trust.access(ca, mesh.config.trust_domain, &registry)?;
    Ok(ControlPlane::new(Setup {
        name: "outrigger-control".to_owned(),
        sources: arguments.paths.iter().map(|path| path.display().to_string()).collect(),
        limits: Limits::default(),
        registry,
        access: Some(access),
    })?)
}

/// What proxies ask, on all ports.
fn discovery(plane: &Arc<ControlPlane>) -> Router {
    let server = Server::builder().http2_keepalive_interval(Some(PING));
    let mut server = server.http2_keepalive_timeout(Some(PING));
    server.add_service(ads::service(plane)).add_service(secret_discovery::service(plane))
}

async fn streams(
    router: Router,
    accepted: impl Stream<Item = io::Result<Connection>> + Send + 'static,
    plane: Arc<ControlPlane>,
) -> Result<()> {
    let drained = async { plane.drained().await };
    router.serve_with_incoming_shutdown(accepted, drained).await.context("serving proxies")
}

async fn until_told_to_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The sets of objects, as they come. A task of its own reads them: a source must not be interrupted.
fn sets(arguments: &Arguments) -> mpsc::Receiver<ObjectSet> {
    let mut directory = arguments.directory();
    let (sender, sets) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let set = directory.next().await;
            if sender.send(set).await.is_err() {
                return;
            }
        }
    });
    sets
}

/// Makes meshes of sets of objects, and serves them.
struct Publisher {
    plane: Arc<ControlPlane>,
    settings: Settings,
    debounce: Debounce,
    coloured: bool,
    /// Findings that were told already.
    told: BTreeSet<String>,
}

impl Publisher {
    fn new(plane: Arc<ControlPlane>, arguments: &Arguments, coloured: bool) -> Self {
        let settings = arguments.settings();
        let quiet = Duration::from_secs_f64(arguments.debounce);
        let debounce = Debounce::new(quiet, LONGEST);
        Self { plane, settings, debounce, coloured, told: BTreeSet::new() }
    }

    async fn run(mut self, mut sets: mpsc::Receiver<ObjectSet>) -> Result<()> {
        let Some(first) = sets.recv().await else { return Ok(()) };
        if first.objects.is_empty() {
            self.tell(&analyze::everything(&first, &Mesh::default()));
            tracing::warn!(
                "there is nothing to serve yet: no objects in {}",
                self.plane.sources().join(", ")
            );
        } else {
            self.publish(&first, Instant::now())?;
        }
        let mut waiting: Option<ObjectSet> = None;
        loop {
            let due = self.debounce.due().unwrap_or_else(Instant::now);
            tokio::select! {
                set = sets.recv() => {
                    let Some(set) = set else { return Ok(()) };
                    waiting = Some(set);
                    self.debounce.note(Instant::now());
                }
                () = tokio::time::sleep_until(due.into()), if waiting.is_some() => {
                    if let Some(since) = self.debounce.take(Instant::now())
                        && let Some(set) = waiting.take()
                        && let Err(error) = self.publish(&set, since)
                    {
                        tracing::error!("the mesh stays as it was: {error:#}");
                    }
                }
            }
        }
    }

    fn publish(&mut self, set: &ObjectSet, since: Instant) -> Result<()> {
        let mesh = self.settings.mesh(set)?;
        let findings = analyze::everything(set, &mesh);
        self.tell(&findings);
        let objects = mesh.objects().count();
        let of = |level| findings.iter().filter(|it| it.level() == level).count();
        let (errors, warnings) = (of(Level::Error), of(Level::Warning));
        let world = self.plane.publish(mesh, findings, since);
        let (proxies, _) = self.plane.fleet().settled(world.number);
        tracing::info!(
            "mesh {}: {objects} objects, {errors} errors, {warnings} warnings, for {proxies} proxies",
            world.number
        );
        Ok(())
    }

    /// Prints what was not told before; what is only for information is left to `analyze`.
    fn tell(&mut self, findings: &Findings) {
        let loud = findings.iter().filter(|it| it.level() > Level::Info);
        let lines: BTreeSet<String> = loud.map(|it| text::line(it, self.coloured)).collect();
        for line in lines.difference(&self.told) {
            eprintln!("{line}");
        }
        let mended = self.told.difference(&lines).count();
        if mended > 0 {
            tracing::info!("{mended} findings are gone");
        }
        self.told = lines;
    }
}
