//! `outriggerctl apply`: files into the folder that a control plane serves, and waiting until every proxy has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

use super::{Control, fetch};

/// How often the control plane is asked.
const STEP: Duration = Duration::from_millis(50);
/// A change of a file is noticed within this, even on file systems that tell nothing.
const NOTICED: Duration = Duration::from_secs(15);

/// Put files into the folder that the control plane serves, and wait until every proxy has accepted them
///
/// Files are read first: one that is no YAML changes nothing. A file of the same name is replaced.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Arguments {
    /// Files with objects
    #[arg(short, long = "filename", required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Where they are put; by default the first folder that the control plane serves
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,

    /// Return when N of N proxies have accepted the mesh with them
    #[arg(long)]
    wait: bool,

    /// Seconds to wait at most
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,

    #[command(flatten)]
    control: Control,
}

const HELP: &str = "\
Examples:
  outriggerctl apply -f reviews-v3.yaml --wait     returns when every proxy routes as the file says

Exit code: 0 if that came to pass, 1 if not within --timeout, or if a proxy refuses what it was sent.";

/// What is printed, and whether everyone has it.
pub(super) async fn run(arguments: &Arguments) -> Result<(String, bool)> {
    let control = arguments.control.address();
    let before = fetch::json(control, "/api/v1/mesh").await?;
    let folder = match &arguments.to {
        Some(folder) => folder.clone(),
        None => served(&before)?,
    };
    let mut changed = false;
    let mut said = String::new();
    for file in &arguments.files {
        let (name, is_new) = put(file, &folder)?;
        changed |= is_new;
        said += &format!("{name} {}\n", if is_new { "configured" } else { "unchanged" });
    }
    if !arguments.wait {
        return Ok((said, true));
    }
    let number = before["number"].as_u64().unwrap_or_default() + u64::from(changed);
    let (outcome, good) = wait(control, number, Duration::from_secs(arguments.timeout)).await?;
    Ok((said + &outcome, good))
}

fn served(mesh: &Value) -> Result<PathBuf> {
    let sources = mesh["sources"].as_array().into_iter().flatten();
    let mut folders = sources.filter_map(Value::as_str).map(PathBuf::from).filter(|it| it.is_dir());
    folders.next().context("the control plane serves no folder that is here: say which with --to")
}

/// Puts a file into a folder, whole or not at all; whether it says something new.
fn put(file: &Path, folder: &Path) -> Result<(String, bool)> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    if let Err(error) = xds::yaml::tree::parse_all(&text) {
        bail!("{shown}:{}: {}", error.at, error.reason);
    }
    let name = file.file_name().with_context(|| format!("{shown} has no name"))?;
    let target = folder.join(name);
    let name = name.to_string_lossy().into_owned();
    if fs::read_to_string(&target).is_ok_and(|there| there == text) {
        return Ok((name, false));
    }
    // What begins with a dot is not read.
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.with_context(|| format!("cannot write {}", target.display()))?;
    Ok((name, true))
}

/// Waits until all proxies have this mesh or a later one.
async fn wait(control: &str, number: u64, longest: Duration) -> Result<(String, bool)> {
    let begun = Instant::now();
    loop {
        let mesh = fetch::json(control, "/api/v1/mesh").await?;
        let count = |key: &str| mesh["proxies"][key].as_u64().unwrap_or_default();
        let (synced, connected) = (count("synced"), count("connected"));
        let is_read = mesh["number"].as_u64() >= Some(number);
        if is_read && synced == connected {
            let took = begun.elapsed().as_secs_f64();
            return Ok((
                format!("{synced} of {connected} proxies have it after {took:.2} s\n"),
                true,
            ));
        }
        let refusals = if is_read { refusals(control).await? } else { Vec::new() };
        if !refusals.is_empty() {
            return Ok((refusals.concat(), false));
        }
        if begun.elapsed() >= longest || (!is_read && begun.elapsed() >= NOTICED) {
            let why = if is_read {
                format!("{synced} of {connected} proxies have it; see outriggerctl proxy-status\n")
            } else {
                "the control plane has not read it: see its log, and outriggerctl analyze\n"
                    .to_owned()
            };
            return Ok((why, false));
        }
        sleep(STEP).await;
    }
}

async fn refusals(control: &str) -> Result<Vec<String>> {
    let proxies = fetch::json(control, "/api/v1/proxies").await?;
    let mut lines = Vec::new();
    for proxy in proxies.as_array().into_iter().flatten() {
        for (kind, state) in proxy["xds"].as_object().into_iter().flatten() {
            if let Some(error) = state["error"].as_str() {
                let name = proxy["name"].as_str().unwrap_or_default();
                lines.push(format!("{name} refuses {kind}: {error}\n"));
            }
        }
    }
    Ok(lines)
}
