//! A whole mesh on this machine: the control plane, a gateway, and for each Deployment a service with its sidecar. All
//! that passes between them is mutual TLS, and edits of the YAML are followed.

mod bootstrap;
mod figures;
mod folder;
mod load;
mod objects;
mod running;
mod shares;
mod table;
mod view;
mod workloads;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use examples::processes::asked_to_end;
use tokio::sync::mpsc;

use self::folder::{Folder, documents};
use self::load::Load;
use self::running::Running;
use self::view::{Output, View};

/// The port at which a control plane tells of itself, unless another is asked for.
pub(crate) const STATUS_PORT: u16 = 15014;

/// What is started, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct MeshOptions {
    /// Folders and files of Istio's and Kubernetes' YAML [default: the book shop's own]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The gateway's port: the mesh's ports 80 and 8080
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    traffic_port: u16,
    /// The port at which proxies ask the control plane
    #[arg(long, default_value_t = 15010, value_name = "PORT")]
    xds_port: u16,
    /// The port at which agents ask for certificates
    #[arg(long, default_value_t = 15012, value_name = "PORT")]
    xds_tls_port: u16,
    /// The port at which the control plane tells of itself
    #[arg(long, default_value_t = STATUS_PORT, value_name = "PORT")]
    status_port: u16,
    /// Visitors per second that read the page; one of four is jason
    #[arg(long, default_value_t = 4.0, value_name = "RATE", value_parser = rate)]
    load: f64,
    /// How the calls are shown
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Seconds between one look and the next [default: 1, or 10 for a table that goes to a file]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: Option<u64>,
    /// Directory for what is made on the way, logs included; a temporary one otherwise
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl MeshOptions {
    fn ports(&self) -> [(&'static str, u16); 4] {
        [
            ("traffic-port", self.traffic_port),
            ("xds-port", self.xds_port),
            ("xds-tls-port", self.xds_tls_port),
            ("status-port", self.status_port),
        ]
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("not a number from 0 to 10000".to_owned()),
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Starts everything, tells of it until Ctrl-C, and ends it.
///
/// # Errors
/// If something does not start, or ends by itself.
pub(crate) async fn run(options: MeshOptions) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("outrigger-bookinfo-").tempdir()?;
    let dir = match &options.state_dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            dir.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    are_free(&options)?;
    let given = paths(&options.paths)?;
    let (folder, aside) = Folder::lay(dir.join("mesh"), &given)?;
    let (said, events) = mpsc::unbounded_channel();
    for file in aside {
        said.send(format!("{file} is left aside: it has objects that others have, too"))?;
    }
    let (running, workloads) = Running::start(&dir, &options)?;
    let load = Load::new(options.traffic_port, options.load);
    let view = View::new(&options, &dir, workloads, load.account());
    tokio::select! {
        error = running.follow(folder, given, said) => Err(error),
        ended = async {
            view.until_ready().await?;
            tokio::join!(view.show(events), load.run()).0
        } => ended,
        () = asked_to_end() => Ok(()),
    }
}

/// That nobody listens on the ports, which proxies would only say in their logs.
fn are_free(options: &MeshOptions) -> anyhow::Result<()> {
    for (name, port) in options.ports() {
        if let Err(error) = TcpListener::bind(local(port)) {
            bail!("cannot listen on {}: {error}; choose another with --{name}", local(port));
        }
    }
    Ok(())
}

/// What was given, as absolute paths, since processes run elsewhere.
fn paths(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let own = [Path::new(env!("CARGO_MANIFEST_DIR")).join("bookinfo/mesh")];
    let given = if given.is_empty() { &own[..] } else { given };
    given
        .iter()
        .map(|path| path.canonicalize().with_context(|| format!("cannot read {}", path.display())))
        .collect()
}

/// Applies files to the mesh that runs with this port, and waits until all proxies have them.
///
/// # Errors
/// If a file cannot be read, there is no such mesh, or a proxy refuses what it is sent.
pub(crate) fn apply(files: &[PathBuf], status_port: u16) -> anyhow::Result<()> {
    let drafts = tempfile::tempdir()?;
    let mut arguments: Vec<OsString> =
        ["outriggerctl", "apply", "--wait", "--control"].map(Into::into).into();
    arguments.push(local(status_port).to_string().into());
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for document in documents(&text).with_context(|| file.display().to_string())? {
            folder::write(drafts.path(), &document)?;
            arguments.extend(["-f".into(), drafts.path().join(&document.name).into()]);
        }
    }
    match control_api::ctl::main_with_args(arguments) {
        ExitCode::SUCCESS => Ok(()),
        _ => bail!("it is not in effect everywhere"),
    }
}
