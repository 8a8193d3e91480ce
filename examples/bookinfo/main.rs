//! Bookinfo: a book shop's page made by four services, for meshes to be tried with.
//!
//! One program is every service: which one it is, and in which version, the name of its workload tells.

mod services;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::services::Workload;

/// The services of a book shop, as a mesh sees them.
#[derive(Debug, Parser)]
#[command(name = "bookinfo", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one service until it is ended.
    ///
    /// It asks the others by the names that they have in the mesh, such as `http://reviews:9080`: through the proxy
    /// that `http_proxy` names, or directly if there is none.
    #[command(after_help = "examples:\n  \
        bookinfo service ratings-v1 --listen 127.0.0.1:9080\n  \
        http_proxy=http://127.0.0.1:15007 bookinfo service productpage-v1")]
    Service {
        /// Which one: `productpage-v1`, `details-v1`, `ratings-v1`, `reviews-v1`, `reviews-v2` (with black stars) or
        /// `reviews-v3` (with red ones). What follows the version is ignored.
        workload: Workload,
        /// Address to listen at.
        #[arg(long, default_value = "127.0.0.1:9080")]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    let Command::Service { workload, listen } = Options::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended =
        runtime.map_err(Into::into).and_then(|it| it.block_on(services::serve(workload, listen)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
