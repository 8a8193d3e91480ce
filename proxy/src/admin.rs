//! The admin API: what Envoy's looks like, read-only by GET, on the control runtime.
//!
//! `admin/endpoints.rs` is the table of paths; each file beside it answers one of them. What the answers
//! are made of comes through [`AdminState`]. Everything that changes something needs POST, and a browser on another site gets nothing.

pub mod access_log;
mod certs;
mod clusters;
mod config_dump;
mod endpoints;
mod home;
mod listeners;
mod logging;
mod memory;
mod parameters;
mod ready;
mod reply;
mod same_site;
pub mod server_info;
mod stats;

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;

use crate::cluster::Clusters;
use crate::config::Name;
use crate::config::address::HostAddress;
use crate::config::statistics::ShownStats;
use crate::discovery::dump::ConfigDump;
use crate::snapshot::SnapshotCell;
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use access_log::AdminLog;
use server_info::ServerInfo;

/// Everything the admin API shows and moves.
#[derive(Clone)]
pub struct AdminState {
    /// Who this process is and how it was started.
    pub info: Arc<ServerInfo>,
    /// Its statistics.
    pub metrics: Arc<Metrics>,
    /// Which of them are shown.
    pub shown_stats: Arc<ShownStats>,
    /// The levels of its log.
    pub logging: Logging,
    /// Its access logs.
    pub access_logs: AccessLogger,
    /// Starting, draining, ending.
    pub control: Arc<dyn Control>,
    /// The live side of its clusters.
    pub clusters: Arc<Clusters>,
    /// Its configuration, linked.
    pub snapshots: Arc<SnapshotCell>,
    /// Its configuration, as it was given.
    pub configuration: Arc<ConfigDump>,
}

/// The state of the process (Envoy `admin.v3.ServerInfo.State`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Live,
    /// Told to fail health checks, or draining.
    Draining,
    /// Waiting for the first configuration.
    PreInitializing,
    /// Waiting for what the first configuration names.
    Initializing,
}

/// How listeners are to be drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drain {
    /// Let connections end within the drain time before the listeners are closed.
    pub graceful: bool,
    /// Only listeners with traffic direction INBOUND.
    pub inbound_only: bool,
    /// Drain connections but never close the listeners.
    pub skip_exit: bool,
}

/// What the process does as a whole. None of these waits for what it begins.
pub trait Control: Send + Sync {
    /// The state now; [`State::Draining`] also while health checks are to fail.
    fn state(&self) -> State;

    /// Listeners by name with the addresses they are bound to.
    fn listeners(&self) -> Vec<(Name, HostAddress)>;

    /// Begins to drain listeners.
    fn drain_listeners(&self, drain: Drain);

    /// Begins to end the process, as SIGTERM does.
    fn quit(&self);

    /// Lets health checks fail, or succeed again.
    fn fail_health_checks(&self, fail: bool);
}

/// Serves the API until `shutdown` resolves.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    log: AdminLog,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = endpoints::router(state).layer(from_fn_with_state(log, access_log::logged));
    let service = router.into_make_service_with_connect_info::<access_log::Ends>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

#[cfg(test)]
mod tests;
