//! A mesh that the command has started, for tests to look at.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use harness::eventually::eventually;
use harness::port::Port;
use harness::{Client, Reply, Value};
use parking_lot::Mutex;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bookinfo");
const PORTS: [&str; 4] = ["--traffic-port", "--xds-port", "--xds-tls-port", "--status-port"];

/// A running mesh; dropping it ends all its processes.
pub(crate) struct Mesh {
    process: Child,
    pub(crate) ports: [Port; 4],
    lines: Arc<Mutex<Vec<Value>>>,
}

/// The book shop's own YAML.
pub(crate) fn own_yaml() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bookinfo/mesh")
}

impl Mesh {
    /// Starts a mesh of these files, with so many visitors per second.
    pub(crate) async fn start(paths: &[PathBuf], load: u32) -> Self {
        let ports: [Port; 4] = std::array::from_fn(|_| Port::reserve());
        let mut command = Self::command(ports.each_ref().map(|it| it.address().port()));
        command.args(paths).args(["--output", "json", "--load", &load.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (said, all) = (process.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                all.lock().push(serde_json::from_str(&line).unwrap());
            }
        });
        let mut mesh = Self { process, ports, lines };
        eventually("the mesh to be ready", async || {
            assert!(mesh.process.try_wait().unwrap().is_none(), "it ended");
            (!mesh.lines.lock().is_empty()).then_some(())
        })
        .await;
        mesh
    }

    fn command(ports: [u16; 4]) -> Command {
        let mut command = Command::new(PROGRAM);
        for (flag, port) in PORTS.iter().zip(ports) {
            command.arg(flag).arg(port.to_string());
        }
        command
    }

    /// What the command says that cannot start.
    pub(crate) fn refused(ports: [u16; 4], path: &Path) -> String {
        let process = Self::command(ports).arg(path).output().unwrap();
        assert_eq!(process.status.code(), Some(1));
        String::from_utf8(process.stderr).unwrap()
    }

    /// What was said first: where everything is.
    pub(crate) fn places(&self) -> Value {
        self.lines.lock()[0].clone()
    }

    /// What was told of the mesh last.
    pub(crate) fn last(&self) -> Option<Value> {
        self.lines.lock().iter().rev().find(|it| !it["calls"].is_null()).cloned()
    }

    /// Whether something like this has happened.
    pub(crate) fn has_said(&self, event: &str) -> bool {
        self.lines.lock().iter().any(|it| it["event"].as_str().is_some_and(|it| it.contains(event)))
    }

    /// Of the calls between these two, what was told last.
    pub(crate) fn calls(&self, from: &str, to: &str) -> Option<Value> {
        let last = self.last()?;
        last["calls"].as_array()?.iter().find(|it| it["from"] == from && it["to"] == to).cloned()
    }

    /// The gateway's clients.
    pub(crate) fn client(&self) -> Client {
        Client::http1(self.ports[0].address())
    }

    /// Who serves the reviews of the page that this visitor sees.
    pub(crate) async fn reviews(&self, user: &str) -> String {
        reviewer(&self.page(user).await)
    }

    /// The page that this visitor sees.
    pub(crate) async fn page(&self, user: &str) -> Reply {
        let call = self.client().get("/productpage").header("cookie", &format!("session={user}"));
        let page = call.send().await;
        assert_eq!(page.status, 200, "{}", page.text());
        page
    }

    /// Applies files, as the README says, and waits until every proxy has them.
    pub(crate) fn apply(&self, files: &[PathBuf]) -> String {
        let port = self.ports[3].address().port().to_string();
        let applied = Command::new(PROGRAM)
            .args(["apply", "--status-port", &port])
            .args(files)
            .output()
            .unwrap();
        let said = String::from_utf8(applied.stdout).unwrap();
        assert!(applied.status.success(), "{said}{}", String::from_utf8_lossy(&applied.stderr));
        said
    }

    /// Sends it a signal, and gives how it ends.
    pub(crate) async fn end(&mut self, signal: &str) -> ExitStatus {
        kill(signal, self.process.id());
        eventually("the end", async || self.process.try_wait().unwrap()).await
    }

    /// The process that was started with these words.
    pub(crate) fn child(&self, words: &str) -> u32 {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
        let parent = format!("PPid:\t{}\n", self.process.id());
        let is_child = |number: &u32| {
            let text = |name: &str| std::fs::read_to_string(format!("/proc/{number}/{name}"));
            text("status").is_ok_and(|it| it.contains(&parent))
                && text("cmdline").is_ok_and(|it| it.replace('\0', " ").contains(words))
        };
        numbers.into_iter().find(is_child).unwrap()
    }

    /// What it says at last of why it ends.
    pub(crate) async fn last_words(mut self) -> String {
        let status = eventually("the end", async || self.process.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(1));
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

/// Sends a signal to a process.
pub(crate) fn kill(signal: &str, process: u32) {
    let kill = format!("kill -{signal} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Who serves the reviews of a page.
pub(crate) fn reviewer(page: &Reply) -> String {
    let text = page.text();
    let after = text.split_once("Reviews served by ").map(|(_, it)| it.to_owned());
    after.and_then(|it| Some(it.split_once('<')?.0.to_owned())).unwrap_or_default()
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            kill("TERM", self.process.id());
            let _ = self.process.wait();
        }
    }
}
