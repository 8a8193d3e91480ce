//! A proxy as a real process: started with a bootstrap, ready when its admin says so, ended by pid.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::client::raw::RawConnection;
use crate::client::{Call, Client};
use crate::eventually::eventually;
use crate::port::Port;
use crate::program::Program;

/// A running proxy; dropping it kills the process.
#[derive(Debug)]
pub struct Proxy {
    program: Program,
    child: Child,
    dir: TempDir,
    admin: Port,
    ports: Vec<(String, Port)>,
    arguments: Vec<String>,
}

impl Proxy {
    /// Runs `program` on `bootstrap.yaml` in `dir` and waits until it is ready.
    pub async fn start(
        program: Program,
        dir: TempDir,
        admin: Port,
        ports: Vec<(String, Port)>,
        arguments: Vec<String>,
    ) -> Self {
        let child = spawn(program, dir.path(), &arguments);
        let mut proxy = Self { program, child, dir, admin, ports, arguments };
        proxy.wait_until_ready().await;
        proxy
    }

    /// Ends the process at once, as when its machine stops.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the process again after it has ended, as it was started first, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.program, self.dir.path(), &self.arguments);
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let admin = self.admin();
        eventually("the proxy to be ready", async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{:?} ended with {status} instead of serving", self.program);
            }
            let reply = admin.get("/ready").try_send().await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// Bytes of memory that only this process uses, and that are no part of a file.
    pub fn private_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Which program this is.
    pub fn program(&self) -> Program {
        self.program
    }

    /// The address of listener `name`.
    pub fn address(&self, name: &str) -> SocketAddr {
        let found = self.ports.iter().find(|(listener, _)| listener == name);
        found.unwrap_or_else(|| panic!("no listener {name}")).1.address()
    }

    /// An HTTP/1.1 client of listener `main`.
    pub fn client(&self) -> Client {
        Client::http1(self.address("main"))
    }

    /// A GET to listener `main`.
    pub fn get(&self, path: &str) -> Call {
        self.client().get(path)
    }

    /// A client of the admin API.
    pub fn admin(&self) -> Client {
        Client::http1(self.admin.address())
    }

    /// The value of one counter or gauge of `/stats`; 0 if it was never touched.
    pub async fn stat(&self, name: &str) -> u64 {
        let reply = self.admin().get("/stats?usedonly").send().await;
        let text = reply.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
    }

    /// Waits until counter or gauge `name` satisfies `wanted`.
    pub async fn until_stat(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let mut last = 0;
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        while tokio::time::Instant::now() < deadline {
            last = self.stat(name).await;
            if wanted(last) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{name} stays at {last}");
    }

    /// Waits until each of these counters and gauges has its value.
    pub async fn until_stats<const N: usize>(&self, wanted: [(&str, u64); N]) {
        for (name, value) in wanted {
            self.until_stat(name, |found| found == value).await;
        }
    }

    /// The directory with the bootstrap and everything the proxy reads or writes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The path of `name` in the proxy's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the proxy has said on stdout and stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("proxy.log")).unwrap_or_default()
    }

    /// What the process has in memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// A connection to listener `main`, for bytes.
    pub async fn connect(&self) -> RawConnection {
        RawConnection::open(self.address("main")).await
    }

    /// Sends the process `signal`, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        // The shell's own kill: a bare container has no other.
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh");
        assert!(status.success(), "{kill}");
    }

    /// Waits until the process has ended.
    pub async fn exit_status(&mut self) -> ExitStatus {
        eventually("the proxy to end", async || self.child.try_wait().unwrap()).await
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let bootstrap = std::fs::read_to_string(self.file("bootstrap.yaml"));
            eprintln!("--- bootstrap\n{}", bootstrap.unwrap_or_default());
            eprintln!("--- {:?}'s log\n{}", self.program, self.log());
        }
    }
}

fn spawn(program: Program, dir: &Path, arguments: &[String]) -> Child {
    let log = File::create(dir.join("proxy.log")).unwrap();
    let are_given = arguments.iter().any(|argument| argument == "--concurrency");
    let workers: &[&str] = if are_given { &[] } else { &["--concurrency", "1"] };
    command(program)
        .arg("-c")
        .arg(dir.join("bootstrap.yaml"))
        .args(workers)
        .args(["--disable-hot-restart", "--log-level", "warning"])
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("the proxy to start")
}

/// `program` without arguments.
pub fn command(program: Program) -> Command {
    Command::new(program.path().unwrap_or_else(|| panic!("{program:?} is not installed")))
}
