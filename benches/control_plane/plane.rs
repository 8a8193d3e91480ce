//! The control plane as a process of its own, seen from outside.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Linux's unit of processor time, for all programs: hundredths of a second.
const TICKS: u64 = 100;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A control plane; it ends with this.
pub(crate) struct Plane {
    process: Child,
    http: SocketAddr,
}

impl Plane {
    /// Starts one, and waits until it has read the mesh.
    ///
    /// # Errors
    /// It cannot be started, or ends.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        xds: SocketAddr,
        http: SocketAddr,
    ) -> Result<Self> {
        let process = Command::new(program)
            .args(["run", "--log-level", "error"])
            .args(["--xds", &xds.to_string(), "--http", &http.to_string()])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.with_context(|| format!("cannot start {}", program.display()))?;
        let mut plane = Self { process, http };
        while !plane.get("/ready").await.is_ok_and(|answer| answer.contains("ready\n")) {
            if let Some(status) = plane.process.try_wait()? {
                bail!("{} ends: {status}", program.display());
            }
            sleep(PAUSE).await;
        }
        Ok(plane)
    }

    /// Waits until this mesh or a later one is at so many proxies, and all have accepted it.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn until_all_have(&self, proxies: usize, mesh: u64) -> Result<()> {
        let wanted = u64::try_from(proxies)?;
        loop {
            let push = self.last().await?;
            let count = |name: &str| push["proxies"][name].as_u64();
            let all = count("connected") == Some(wanted) && count("synced") == Some(wanted);
            if push["mesh"].as_u64() >= Some(mesh) && all {
                return Ok(());
            }
            // What is not followed any longer is not up to date there.
            if mesh == 1 && self.synced().await? == proxies {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// The number of the newest mesh.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn newest(&self) -> Result<u64> {
        self.last().await?["mesh"].as_u64().context("no mesh")
    }

    /// Processor time so far.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name before may have blanks.
        let after = stat.rsplit_once(')').context("no name")?.1;
        let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS))
    }

    /// Resident memory now, and the most there was: in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            number.map(|it| it * 1024).with_context(|| format!("no {name}"))
        };
        Ok((of("VmRSS:")?, of("VmHWM:")?))
    }

    async fn last(&self) -> Result<Value> {
        let pushes: Value = serde_json::from_str(&self.get("/api/v1/pushes").await?)?;
        Ok(pushes[0].clone())
    }

    /// How many proxies have accepted everything, counted by the metric of meshes that arrived.
    async fn synced(&self) -> Result<usize> {
        let metrics = self.get("/metrics").await?;
        let count = metrics.lines().find_map(|line| {
            line.strip_prefix("pilot_proxy_convergence_time_count ")?.parse::<f64>().ok()
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a count"
        )]
        Ok(count.unwrap_or(0.0) as usize)
    }

    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.http).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: control\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(body.to_owned())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
