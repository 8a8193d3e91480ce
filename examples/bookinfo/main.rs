//! The book shop that meshes are shown with: four services, one of them in three versions, and the mesh around them.
//!
//! One program is every service: which one it is, and in which version, the name of its workload tells.

mod laptop;
mod services;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::services::Workload;

/// A whole mesh on this machine: control plane, ingress gateway, and for each Deployment a service with its sidecar
///
/// Everything listens on loopback addresses only, needs no privileges, and ends with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "bookinfo", version, max_term_width = 100, after_long_help = HELP)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mesh: laptop::MeshOptions,
}

const HELP: &str = "\
Examples:
  bookinfo                                         the book shop's own YAML
  bookinfo mesh/                                   other YAML; a small program of ours stands in for the images
  bookinfo istio/samples/bookinfo/platform/kube istio/samples/bookinfo/networking
  bookinfo apply virtual-service-reviews-v3.yaml   while it runs: changes the mesh as `kubectl apply` would

What is there at the beginning is the base: of several files that hold the same object the one with the shortest name is
taken, and the others are left aside, to be applied. From then on, a file that is saved is applied, and what is deleted
is gone; a file that cannot be read changes nothing.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Applies files to the running mesh, as `kubectl apply` would, and waits until every proxy has accepted them
    Apply {
        /// Files with objects
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The port at which the control plane tells of itself
        #[arg(long, default_value_t = laptop::STATUS_PORT)]
        status_port: u16,
    },
    /// Runs one service until it is ended
    ///
    /// It asks the others by the names that they have in the mesh, such as `http://reviews:9080`: through the proxy
    /// that `http_proxy` names, or else directly.
    Service {
        /// The workload's name, which says what it is: `productpage…`, `details…`, `ratings…`, or `reviews-v1…` to
        /// `reviews-v3…`; others say who they are
        workload: Workload,
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:9080")]
        listen: SocketAddr,
    },
    /// Runs one proxy, with the arguments of `outrigger`
    #[command(hide = true)]
    Proxy {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs the control plane, with the arguments of `outrigger-control`
    #[command(hide = true)]
    Control {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let Options { command, mesh } = Options::parse();
    let named =
        |name: &str, arguments: Vec<OsString>| std::iter::once(name.into()).chain(arguments);
    let ended = match command {
        Some(Command::Proxy { arguments }) => {
            return proxy::main_with_args(named("outrigger", arguments));
        }
        Some(Command::Control { arguments }) => {
            return control_api::server::main_with_args(named("outrigger-control", arguments));
        }
        Some(Command::Apply { files, status_port }) => laptop::apply(&files, status_port),
        Some(Command::Service { workload, listen }) => block_on(services::serve(workload, listen)),
        None => block_on(laptop::run(mesh)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
