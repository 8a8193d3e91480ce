//! What runs of a mesh: kept as its objects say.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use control_api::model::object::Object;
use control_api::source::directory::Directory;
use examples::processes::Processes;
use tokio::sync::{mpsc, watch};

use super::folder::{Folder, sets};
use super::workloads::{Network, Workload};
use super::{MeshOptions, bootstrap, local, objects};

/// What the control plane serves beside the folder of objects.
const ADDED: &str = "on-this-machine";
/// The port of all services of the book shop, as their clients know it.
const SHOP_PORT: u16 = 9080;
/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(100);

/// A running mesh; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    dir: PathBuf,
    itself: PathBuf,
    network: Network,
    traffic_port: u16,
    xds_port: u16,
    xds_tls_port: u16,
    processes: Processes,
    workloads: watch::Sender<Vec<Workload>>,
}

impl Running {
    /// Starts everything that the objects in `mesh` below `dir` ask for.
    ///
    /// # Errors
    /// If they ask for nothing, or something cannot be started.
    pub(super) fn start(
        dir: &Path,
        options: &MeshOptions,
    ) -> anyhow::Result<(Self, watch::Receiver<Vec<Workload>>)> {
        let (sender, workloads) = watch::channel(Vec::new());
        let mut running = Self {
            dir: dir.to_owned(),
            itself: std::env::current_exe().context("the path of this program")?,
            network: Network::claim()?,
            traffic_port: options.traffic_port,
            xds_port: options.xds_port,
            xds_tls_port: options.xds_tls_port,
            processes: Processes::new(dir),
            workloads: sender,
        };
        std::fs::create_dir_all(dir.join(ADDED))?;
        std::fs::create_dir_all(dir.join("ca"))?;
        let objects = Directory::new([dir.join("mesh")]).load().objects;
        let wanted = running.wanted(&objects)?;
        running.write(&objects, &wanted)?;
        running.start_control_plane(options)?;
        for workload in &wanted {
            running.start_workload(workload)?;
        }
        running.workloads.send_replace(wanted);
        Ok((running, workloads))
    }

    /// Follows what was given into the folder, and the folder's objects, until something goes wrong.
    pub(super) async fn follow(
        mut self,
        mut folder: Folder,
        given: Vec<PathBuf>,
        said: mpsc::UnboundedSender<String>,
    ) -> anyhow::Error {
        let (mut given, mut applied) = (sets(given), sets(vec![self.dir.join("mesh")]));
        let mut look = tokio::time::interval(LOOK);
        loop {
            let events = tokio::select! {
                Some(set) = given.recv() => folder.follow(&set),
                Some(set) = applied.recv() => match self.become_like(&set.objects).await {
                    Ok(events) => events,
                    Err(error) => vec![format!("the processes stay as they are: {error:#}")],
                },
                _ = look.tick() => match self.processes.ended() {
                    Some((name, status)) => return self.processes.last_words(&name, status),
                    None => continue,
                },
            };
            for event in events {
                // Whoever shows them may be about to end.
                let _ = said.send(event);
            }
        }
    }

    /// Starts and ends workloads as these objects have it.
    async fn become_like(&mut self, objects: &[impl AsRef<Object>]) -> anyhow::Result<Vec<String>> {
        let before = self.workloads.borrow().clone();
        let wanted = self.wanted(objects)?;
        self.write(objects, &wanted)?;
        let mut events = Vec::new();
        for gone in before.iter().filter(|it| !wanted.contains(it)) {
            for name in [gone.full_name(), proxy_of(gone)] {
                self.processes.end(&name).await;
            }
            events.push(format!("{} is ended", gone.full_name()));
        }
        for new in wanted.iter().filter(|it| !before.contains(it)) {
            self.start_workload(new)?;
            events.push(format!("{} is started", new.full_name()));
        }
        self.workloads.send_replace(wanted);
        Ok(events)
    }

    fn wanted(&self, objects: &[impl AsRef<Object>]) -> anyhow::Result<Vec<Workload>> {
        self.network.workloads(objects, local(self.traffic_port), &self.workloads.borrow())
    }

    /// Writes what the processes read.
    fn write(&self, objects: &[impl AsRef<Object>], workloads: &[Workload]) -> anyhow::Result<()> {
        let mut tokens = String::new();
        for workload in workloads {
            let (name, token) = (workload.full_name(), workload.token());
            let Workload { namespace, account, .. } = workload;
            let _ = writeln!(tokens, "{token},system:serviceaccount:{namespace}:{account}");
            certs::key::write_private(&self.dir.join(format!("{name}.token")), &token)?;
            let bootstrap = bootstrap::of(workload, local(self.xds_port));
            std::fs::write(self.dir.join(format!("{name}.yaml")), bootstrap.to_string())?;
        }
        certs::key::write_private(&self.dir.join("tokens"), &tokens)?;
        let added = self.dir.join(ADDED);
        let (draft, path) = (added.join(".objects.yaml"), added.join("objects.yaml"));
        std::fs::write(&draft, objects::documents(objects, workloads))?;
        std::fs::rename(&draft, &path).with_context(|| path.display().to_string())
    }

    fn start_control_plane(&mut self, options: &MeshOptions) -> anyhow::Result<()> {
        let (xds, tls) = (local(self.xds_port).to_string(), local(self.xds_tls_port).to_string());
        let http = local(options.status_port).to_string();
        let mut arguments: Vec<OsString> = ["control", "run"].map(Into::into).into();
        arguments.extend([self.dir.join("mesh").into(), self.dir.join(ADDED).into()]);
        let options = [
            ["--xds", &xds],
            ["--xds-tls", &tls],
            ["--http", &http],
            ["--ca-dir", "ca"],
            ["--token-file", "tokens"],
        ];
        arguments.extend(options.as_flattened().iter().map(Into::into));
        arguments.push("--trust-claims".into());
        self.processes.start("control-plane", &self.itself, arguments, &[])
    }

    /// The proxy of a workload, and what it stands beside.
    fn start_workload(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let name = workload.full_name();
        let (file, token) = (format!("{name}.yaml"), format!("{name}.token"));
        let (ca, roots) = (local(self.xds_tls_port).to_string(), self.dir.join("ca/root-cert.pem"));
        let roots = roots.to_string_lossy();
        let options = [
            ["-c", &file],
            ["--concurrency", "1"],
            ["--ca-address", &ca],
            ["--ca-root", &roots],
            ["--ca-server-name", "istiod.istio-system.svc"],
            ["--ca-token", &token],
            ["--workload-namespace", &workload.namespace],
            ["--service-account", &workload.account],
        ];
        let arguments = ["proxy"].iter().chain(options.as_flattened());
        self.processes.start(&proxy_of(workload), &self.itself, arguments, &[])?;
        let Some(behind) = &workload.service else { return Ok(()) };
        let address = behind.address.to_string();
        let outbound = format!("http://{}:{SHOP_PORT}", behind.outbound);
        let arguments = ["service", &workload.name, "--listen", &address];
        self.processes.start(&name, &self.itself, arguments, &[("http_proxy", outbound)])
    }
}

fn proxy_of(workload: &Workload) -> String {
    format!("{}.proxy", workload.full_name())
}
