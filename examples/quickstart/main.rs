//! A small mesh in one command: two versions of a backend, a sidecar in front of them, an edge proxy.
//!
//! The program starts itself again for each part, so that every proxy and backend is a process of its
//! own, as it would be in production.

mod backend;
mod mesh;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Starts the demo mesh, says what to try, and ends it with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    mesh: MeshOptions,
}

/// Where the parts listen, and which program the proxies are.
#[derive(Debug, Args)]
struct MeshOptions {
    /// Port of the edge proxy for traffic.
    #[arg(long, default_value_t = 8080)]
    traffic_port: u16,
    /// Port of the edge proxy's admin API.
    #[arg(long, default_value_t = 9901)]
    admin_port: u16,
    /// Port of the sidecar, which takes only mutual TLS.
    #[arg(long, default_value_t = 8443)]
    sidecar_port: u16,
    /// Port of the sidecar's admin API.
    #[arg(long, default_value_t = 9902)]
    sidecar_admin_port: u16,
    /// Port of the backend's version v1.
    #[arg(long, default_value_t = 9001)]
    v1_port: u16,
    /// Port of the backend's version v2.
    #[arg(long, default_value_t = 9002)]
    v2_port: u16,
    /// Directory for configuration, certificates and logs; a temporary one otherwise.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Another program for the proxies, such as `envoy`: the same files configure it.
    #[arg(long, value_name = "FILE")]
    proxy: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Runs one proxy, with the arguments of `outrigger`.
    #[command(hide = true)]
    Proxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs one version of the demo backend.
    #[command(hide = true)]
    Backend {
        /// What the backend calls itself.
        #[arg(long)]
        version: String,
        /// Port on 127.0.0.1.
        #[arg(long)]
        port: u16,
    },
}

fn main() -> ExitCode {
    let Options { part, mesh } = Options::parse();
    let ended = match part {
        Some(Part::Proxy { arguments }) => {
            let arguments = std::iter::once("outrigger".into()).chain(arguments);
            return proxy::main_with_args(arguments);
        }
        Some(Part::Backend { version, port }) => block_on(backend::serve(&version, port)),
        None => block_on(mesh::run(&mesh)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
