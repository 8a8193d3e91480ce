//! The command line, spelled as Envoy spells it, so that a container which starts Envoy can start this proxy.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::agent::options::AgentOptions;
use crate::offline::{explain, fields, route_check};

/// What the command line says.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    about = "Sidecar and gateway proxy configured by Envoy's v3 API",
    after_help = "Examples:\n  outrigger -c envoy.yaml                     serve the listeners of an Envoy bootstrap\n  \
                  outrigger --mode validate -c envoy.yaml     check it and exit (0: good, 1: every error with file:line:column)\n  \
                  outrigger -c envoy.yaml --config-yaml 'admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}'\n\n\
                  Exit codes: 0 served and drained, or valid; 1 the configuration or an address was refused; 2 wrong arguments."
)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    /// Answer a question about a configuration instead of serving it
    #[command(subcommand)]
    pub question: Option<Question>,

    /// Bootstrap file: YAML, JSON, or protobuf (.pb)
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// Bootstrap as YAML text, merged over the file
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,

    /// Keep the last good configuration of management servers here, without secrets, and start from it
    #[arg(long, env = "CONFIG_CACHE_DIR", value_name = "DIRECTORY")]
    pub config_cache_dir: Option<PathBuf>,

    /// Serve, or only check the configuration
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// Worker threads; 0 or absent: the CPU quota of the cgroup, rounded up, else the cores
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,

    /// trace, debug, info, warning, error, critical or off
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Levels of single components, for example `http:debug,discovery:trace`
    #[arg(long, value_name = "LIST", default_value = "")]
    pub component_log_level: String,

    /// How log lines are written: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: String,

    /// Append log lines to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_path: Option<PathBuf>,

    /// Seconds that requests in flight get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 45)]
    pub drain_time_s: u64,

    /// Node id, in place of the bootstrap's
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// Node cluster, in place of the bootstrap's
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,

    /// Node zone, in place of the bootstrap's
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,

    /// Write the admin address to this file once it listens
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,

    /// Accepted for Envoy's sake: there is no hot restart, so no two instances collide
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub base_id: u32,

    /// The workload's own certificate
    #[command(flatten)]
    pub agent: AgentOptions,

    /// Flags of Envoy that change nothing here
    #[command(flatten)]
    pub ignored: IgnoredFlags,
}

/// What can be asked about a configuration without serving it.
#[derive(Debug, clap::Subcommand)]
pub enum Question {
    /// Hold a route table against tests in the format of Envoy's router_check_tool
    RouteCheck(route_check::Arguments),
    /// Say which way a request would go through a configuration, and why
    Explain(explain::Arguments),
    /// List the fields of Envoy's API that are accepted without effect, each with the reason
    Fields(fields::Arguments),
}

/// Envoy flags that have no meaning here; each one given is named in a warning.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Accepted for Envoy's sake, without effect")]
pub struct IgnoredFlags {
    #[arg(long, hide = true)]
    use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_on_no_parent: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    base_id_path: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "N")]
    restart_epoch: Option<u32>,
    #[arg(long, hide = true)]
    disable_hot_restart: bool,
    #[arg(long, hide = true, value_name = "SECONDS")]
    parent_shutdown_time_s: Option<u64>,
    #[arg(long, hide = true, value_name = "STRATEGY")]
    drain_strategy: Option<String>,
    #[arg(long, hide = true, value_name = "MS")]
    file_flush_interval_msec: Option<u64>,
    #[arg(long, hide = true, value_name = "KB")]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true, value_name = "VERSION")]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    allow_unknown_static_fields: bool,
    #[arg(long, hide = true)]
    allow_unknown_fields: bool,
    #[arg(long, hide = true)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    cpuset_threads: bool,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    enable_core_dump: bool,
    #[arg(long, hide = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true, value_name = "PATH")]
    socket_path: Option<String>,
    #[arg(long, hide = true, value_name = "MODE")]
    socket_mode: Option<String>,
    #[arg(long, hide = true, value_name = "LIST")]
    disable_extensions: Option<String>,
    #[arg(long, hide = true, value_name = "LIST")]
    stats_tag: Vec<String>,
    #[arg(long, hide = true)]
    skip_deprecated_logs: bool,
}

/// Envoy `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve traffic.
    Serve,
    /// Check the configuration and exit.
    Validate,
    /// As `validate` (Envoy also skips its start-up here).
    #[value(name = "init_only")]
    InitOnly,
}

impl Options {
    /// Reads the arguments, the program's name first.
    ///
    /// # Errors
    /// Wrong arguments, or a request for help or the version: clap's error prints either.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// Worker threads to start: as asked, else the CPU quota, else the cores; at least 1.
    pub fn workers(&self) -> usize {
        match self.concurrency {
            Some(asked) if asked > 0 => asked,
            _ => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                // available_parallelism knows quotas but rounds them down.
                cgroup_quota().map_or(cores, |quota| quota.clamp(1, cores.max(quota)))
            }
        }
    }

    /// Time to finish requests in flight.
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }

    /// Flags given that have no effect, for a warning.
    pub fn ineffective(&self) -> Vec<&'static str> {
        let flags = &self.ignored;
        [
            (flags.use_dynamic_base_id, "--use-dynamic-base-id"),
            (flags.skip_hot_restart_on_no_parent, "--skip-hot-restart-on-no-parent"),
            (flags.base_id_path.is_some(), "--base-id-path"),
            (flags.restart_epoch.is_some(), "--restart-epoch"),
            (flags.disable_hot_restart, "--disable-hot-restart"),
            (flags.parent_shutdown_time_s.is_some(), "--parent-shutdown-time-s"),
            (flags.drain_strategy.is_some(), "--drain-strategy"),
            (flags.file_flush_interval_msec.is_some(), "--file-flush-interval-msec"),
            (flags.file_flush_min_size_kb.is_some(), "--file-flush-min-size-kb"),
            (flags.local_address_ip_version.is_some(), "--local-address-ip-version"),
            (flags.ignore_unknown_dynamic_fields, "--ignore-unknown-dynamic-fields"),
            (flags.allow_unknown_static_fields, "--allow-unknown-static-fields"),
            (flags.allow_unknown_fields, "--allow-unknown-fields"),
            (flags.reject_unknown_dynamic_fields, "--reject-unknown-dynamic-fields"),
            (flags.cpuset_threads, "--cpuset-threads"),
            (flags.enable_mutex_tracing, "--enable-mutex-tracing"),
            (flags.enable_fine_grain_logging, "--enable-fine-grain-logging"),
            (flags.enable_core_dump, "--enable-core-dump"),
            (flags.log_format_escaped, "--log-format-escaped"),
            (flags.socket_path.is_some(), "--socket-path"),
            (flags.socket_mode.is_some(), "--socket-mode"),
            (flags.disable_extensions.is_some(), "--disable-extensions"),
            (!flags.stats_tag.is_empty(), "--stats-tag"),
            (flags.skip_deprecated_logs, "--skip-deprecated-logs"),
            (self.base_id != 0, "--base-id"),
        ]
        .into_iter()
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
    }
}

/// The CPU quota of this process's cgroup in whole CPUs, rounded up; none without one.
fn cgroup_quota() -> Option<usize> {
    let v2 = || {
        let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        quota_cpus(quota, period)
    };
    let v1 = || {
        let read = |name| std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{name}")).ok();
        quota_cpus(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
    };
    v2().or_else(v1)
}

/// Microseconds per period as whole CPUs; `max` and -1 mean no quota.
fn quota_cpus(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1)).and_then(|cpus| usize::try_from(cpus).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::parse(line.split(' ').map(OsString::from)).unwrap()
    }

    #[test]
    fn an_istio_style_command_line_is_accepted() {
        let options = parse(
            "outrigger -c /etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
             --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
             --allow-unknown-static-fields -l warning --component-log-level misc:error \
             --skip-deprecated-logs --concurrency 2",
        );
        assert_eq!(options.workers(), 2);
        assert_eq!(options.drain_time(), Duration::from_secs(45));
        assert!(options.ineffective().contains(&"--drain-strategy"));
        assert!(!options.ineffective().contains(&"--base-id"));
    }

    #[test]
    fn quotas_round_up_and_may_be_absent() {
        assert_eq!(quota_cpus("150000", "100000"), Some(2));
        assert_eq!(quota_cpus("50000", "100000"), Some(1));
        assert_eq!(quota_cpus("max", "100000"), None);
        assert_eq!(quota_cpus("-1", "100000"), None);
    }

    #[test]
    fn help_teaches() {
        let help = <Options as clap::CommandFactory>::command().render_long_help().to_string();
        assert!(help.contains("--mode validate -c") && help.contains("Exit codes"));
    }
}
