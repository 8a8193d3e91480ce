//! Processes that belong together: each with a log of its own, all ended together.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How often it is looked whether one has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How much of a log is told of a process that has ended, in lines.
const LAST_LINES: usize = 10;

/// Running processes; dropping this ends them.
#[derive(Debug)]
pub struct Processes {
    dir: PathBuf,
    running: Vec<(String, Child)>,
}

impl Processes {
    /// None yet; they run in `dir`, where their logs are.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), running: Vec::new() }
    }

    /// Starts a program as `name`. What it says goes to `{name}.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        &mut self,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: &[(&str, String)],
    ) -> anyhow::Result<()> {
        let log = File::create(self.log(name)).with_context(|| format!("the log of {name}"))?;
        let process = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the one who started them, who then ends them.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        self.running.push((name.to_owned(), process));
        Ok(())
    }

    /// Ends the one of this name, and waits until it is gone.
    pub async fn end(&mut self, name: &str) {
        if let Some(at) = self.running.iter().position(|(it, _)| it == name) {
            let (_, mut process) = self.running.remove(at);
            // It may have ended by itself.
            let _ = process.kill().await;
        }
    }

    /// The name of one that has ended, which none should, and how.
    pub fn ended(&mut self) -> Option<(String, ExitStatus)> {
        self.running.iter_mut().find_map(|(name, process)| {
            let status = process.try_wait().ok().flatten()?;
            Some((name.clone(), status))
        })
    }

    /// Waits until one of them ends, which none should; says which, and what it said last.
    pub async fn first_to_end(&mut self) -> anyhow::Error {
        loop {
            if let Some((name, status)) = self.ended() {
                return self.last_words(&name, status);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// That this one has ended, and what it said last.
    pub fn last_words(&self, name: &str, status: ExitStatus) -> anyhow::Error {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        anyhow::anyhow!("{name} ended ({status}); its log says last:\n{}", last.join("\n"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }
}

/// Resolves on Ctrl-C and on SIGTERM.
pub async fn asked_to_end() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
