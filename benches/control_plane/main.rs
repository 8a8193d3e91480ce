//! What a mesh of so many services and so many proxies costs the control plane: it is started on a folder of YAML, all
//! proxies connect, and then one thing after the other is changed. Prints one JSON object.

mod mesh;
mod plane;
mod proxies;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use self::mesh::{Change, Mesh};
use self::plane::Plane;
use self::proxies::{Fleet, Totals};

/// Measures one size
#[derive(Debug, Parser)]
struct Arguments {
    /// The program `outrigger-control`
    #[arg(long, default_value = "target/release/outrigger-control")]
    program: PathBuf,
    /// Services in the mesh
    #[arg(long, default_value_t = 100)]
    services: usize,
    /// Proxies that connect
    #[arg(long, default_value_t = 100)]
    proxies: usize,
    /// Speak state of the world instead of delta
    #[arg(long)]
    sotw: bool,
    /// Each namespace has a Sidecar that shows its own services only
    #[arg(long)]
    scoped: bool,
    /// How often each thing is changed; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The first of two ports
    #[arg(long, default_value_t = 26_000)]
    port: u16,
    /// Seconds that everything may take
    #[arg(long, default_value_t = 300)]
    patience: u64,
}

/// What something cost.
struct Cost {
    /// Processor time of the control plane.
    cpu: Duration,
    /// Until the last proxy had acknowledged.
    took: Duration,
    totals: Totals,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let limit = Duration::from_secs(arguments.patience);
        tokio::time::timeout(limit, measured(&arguments)).await.context("it takes too long")?
    });
    let report = report?;
    println!("{report}");
    Ok(())
}

async fn measured(arguments: &Arguments) -> Result<Value> {
    let Arguments { services, proxies, sotw, scoped, port, .. } = *arguments;
    ensure!(services > 0 && proxies > 0 && arguments.rounds > 0, "there must be some of each");
    let folder = Folder::new()?;
    let mesh = Mesh { folder: folder.0.clone(), services, scoped };
    mesh.write()?;
    let xds = SocketAddr::from(([127, 0, 0, 1], port));
    let http = SocketAddr::from(([127, 0, 0, 1], port + 1));
    let begun = Instant::now();
    let plane = Plane::start(&arguments.program, &folder.0, xds, http).await?;
    let read = begun.elapsed();
    let reading = plane.cpu()?;
    let mut costs = Vec::new();
    let (before, begun) = (plane.cpu()?, Instant::now());
    let fleet = Fleet::connect(xds, &mesh, proxies, sotw).await?;
    plane.until_all_have(proxies, 1).await?;
    let cpu = plane.cpu()? - before;
    let cost = Cost { cpu, took: fleet.since(begun), totals: fleet.totals() };
    costs.push(("connect", shown(&[cost])));
    for (name, change) in Change::ALL {
        let mut rounds = Vec::new();
        for round in 0..arguments.rounds {
            let number = plane.newest().await?;
            fleet.reset();
            let (before, begun) = (plane.cpu()?, Instant::now());
            mesh.change(change, round)?;
            plane.until_all_have(proxies, number + 1).await?;
            let (cpu, totals) = (plane.cpu()? - before, fleet.totals());
            rounds.push(Cost { cpu, took: fleet.since(begun), totals });
        }
        costs.push((name, shown(&rounds)));
    }
    let (resident, highest) = plane.memory()?;
    ensure!(fleet.ended() == 0, "{} streams have ended", fleet.ended());
    let costs: serde_json::Map<String, Value> =
        costs.into_iter().map(|(name, cost)| (name.to_owned(), cost)).collect();
    Ok(json!({
        "services": services, "proxies": proxies, "sotw": sotw, "scoped": scoped,
        "read": {"seconds": read.as_secs_f64(), "cpu": reading.as_secs_f64()},
        "memory": {"resident": resident, "highest": highest}, "costs": costs,
    }))
}

/// The medians.
fn shown(rounds: &[Cost]) -> Value {
    let median = |of: &dyn Fn(&Cost) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
    let whole = |of: fn(&Totals) -> u64| median(&|it| of(&it.totals) as f64);
    json!({
        "cpu": median(&|it| it.cpu.as_secs_f64()), "seconds": median(&|it| it.took.as_secs_f64()),
        "bytes": whole(|it| it.bytes), "most": whole(|it| it.most),
        "responses": whole(|it| it.responses), "told": whole(|it| it.told),
    })
}

/// A folder that goes with the process.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("control-plane-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
