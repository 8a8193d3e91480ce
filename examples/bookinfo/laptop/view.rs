//! What is told of a running mesh: where it is, and every so often who talks to whom.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::load::Account;
use super::table::{self, Lately, Row};
use super::workloads::Workload;
use super::{MeshOptions, figures, local};
use crate::services::outbound::Outbound;

/// How long all may take to be ready.
const START_DEADLINE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);
/// How many events stay below the table.
const EVENTS: usize = 8;

/// How calls are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// A table, renewed in place on a terminal
    Table,
    /// An object per line: first where everything is, then the calls
    Json,
}

/// Someone who looks.
#[derive(Debug)]
pub(super) struct View {
    output: Output,
    every: Duration,
    in_place: bool,
    gateway: SocketAddr,
    control: SocketAddr,
    folder: PathBuf,
    workloads: watch::Receiver<Vec<Workload>>,
    visits: Rc<Cell<Account>>,
    admin: Arc<Outbound>,
}

/// What there is to tell at one moment.
struct Moment {
    mesh: Value,
    findings: Vec<Value>,
    rows: Vec<Row>,
    visits: Account,
}

impl View {
    /// A view of the mesh below `dir`.
    pub(super) fn new(
        options: &MeshOptions,
        dir: &Path,
        workloads: watch::Receiver<Vec<Workload>>,
        visits: Rc<Cell<Account>>,
    ) -> Self {
        let in_place = options.output == Output::Table && std::io::stdout().is_terminal();
        let usual = if in_place || options.output == Output::Json { 1 } else { 10 };
        Self {
            output: options.output,
            every: Duration::from_secs(options.every.unwrap_or(usual)),
            in_place,
            gateway: local(options.traffic_port),
            control: local(options.status_port),
            folder: dir.join("mesh"),
            workloads,
            visits,
            admin: Arc::new(Outbound::direct()),
        }
    }

    /// Waits until every proxy has what the control plane has for it, and serves.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn until_ready(&self) -> anyhow::Result<()> {
        let ready = async {
            while !self.is_ready().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(START_DEADLINE, ready).await;
        let logs = self.folder.parent().unwrap_or(&self.folder).display();
        in_time.with_context(|| {
            format!(
                "not every proxy is ready after {START_DEADLINE:?}; --state-dir keeps logs ({logs})"
            )
        })
    }

    async fn is_ready(&self) -> bool {
        let Ok(mesh) = self.ask("/api/v1/mesh").await else { return false };
        let workloads = self.workloads.borrow().clone();
        let has = |key: &str| mesh["proxies"][key].as_u64() == u64::try_from(workloads.len()).ok();
        if !(has("connected") && has("synced")) {
            return false;
        }
        for workload in workloads {
            let proxy = format!("http://{}/ready", workload.admin);
            let service = workload.service.map(|it| format!("http://{}/health", it.address));
            for url in [Some(proxy), service].into_iter().flatten() {
                let answer = self.admin.fetch(&url, HeaderMap::new(), PATIENCE).await;
                if !answer.is_ok_and(|(status, _)| status == StatusCode::OK) {
                    return false;
                }
            }
        }
        true
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        self.admin.get(&format!("http://{}{path}", self.control), HeaderMap::new(), PATIENCE).await
    }

    /// Tells of the mesh, and of events as they come.
    ///
    /// # Errors
    /// If nobody can read it any more.
    pub(super) async fn show(
        &self,
        mut events: mpsc::UnboundedReceiver<String>,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        match self.output {
            Output::Json => writeln!(out, "{}", self.places())?,
            Output::Table if !self.in_place => writeln!(out, "{}\n", self.welcome())?,
            Output::Table => {}
        }
        let (mut lately, mut last) = (Lately::default(), VecDeque::new());
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let moment = self.look(&mut lately).await;
                    match self.output {
                        Output::Json => writeln!(out, "{}", moment.json())?,
                        Output::Table if self.in_place => self.draw(&moment, &last)?,
                        Output::Table => writeln!(out, "{}\n", moment.text(false))?,
                    }
                }
                Some(event) = events.recv() => match self.output {
                    Output::Json => writeln!(out, "{}", json!({"event": event}))?,
                    Output::Table if self.in_place => {
                        last.push_back(event);
                        while last.len() > EVENTS {
                            last.pop_front();
                        }
                    }
                    Output::Table => writeln!(out, "{event}")?,
                },
            }
            out.flush()?;
        }
    }

    async fn look(&self, lately: &mut Lately) -> Moment {
        let workloads = self.workloads.borrow().clone();
        let figures = figures::of(&self.admin, &workloads).await;
        let findings = self.ask("/api/v1/findings").await.unwrap_or_default();
        let findings = findings.as_array().into_iter().flatten();
        Moment {
            mesh: self.ask("/api/v1/mesh").await.unwrap_or_default(),
            findings: findings.filter(|it| it["level"] == "Error").cloned().collect(),
            rows: lately.note(Instant::now(), figures),
            visits: self.visits.get(),
        }
    }

    /// Everything anew from the top of the screen.
    fn draw(&self, moment: &Moment, events: &VecDeque<String>) -> std::io::Result<()> {
        let coloured = std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        let mut text = format!("\x1b[H\x1b[J{}\n\n{}\n\n", self.welcome(), moment.text(coloured));
        for event in events {
            text += event;
            text.push('\n');
        }
        std::io::stdout().write_all(text.as_bytes())
    }

    fn welcome(&self) -> String {
        let (gateway, control) = (self.gateway, self.control);
        let status = match control.port() {
            super::STATUS_PORT => String::new(),
            port => format!(" --status-port {port}"),
        };
        let page = match self.workloads.borrow().iter().any(|it| it.name.starts_with("productpage"))
        {
            true => format!("the page     http://{gateway}/productpage"),
            false => format!("the gateway  http://{gateway}/"),
        };
        format!(
            "{page}\nstatus       http://{control}/\nsidecars     curl {}/config_dump, and so on\n\
             objects      {}\nchange it    save one of the files that were given, or: bookinfo apply{status} FILE\n\
             end it       Ctrl-C",
            self.workloads.borrow().first().map(|it| it.admin.to_string()).unwrap_or_default(),
            self.folder.display(),
        )
    }

    fn places(&self) -> Value {
        let workloads = self.workloads.borrow();
        let workloads = workloads.iter().map(|it| {
            let behind = it.service.as_ref();
            json!({
                "name": it.name, "namespace": it.namespace, "account": it.account,
                "pod": it.pod, "admin": it.admin,
                "service": behind.map(|it| it.address), "outbound": behind.map(|it| it.outbound),
            })
        });
        json!({
            "gateway": self.gateway, "control": self.control, "folder": self.folder,
            "workloads": workloads.collect::<Vec<_>>(),
        })
    }
}

impl Moment {
    fn json(&self) -> Value {
        let Self { mesh, findings, rows, visits } = self;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64());
        json!({
            "at": at, "mesh": mesh, "errors": findings,
            "calls": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "visits": {"good": visits.good, "bad": visits.bad},
        })
    }

    fn text(&self, coloured: bool) -> String {
        let Self { mesh, findings, rows, visits } = self;
        let proxies = &mesh["proxies"];
        let mut text = table::text(rows, coloured);
        text += &format!(
            "\n\nmesh {}: {} of {} proxies have it; visits: {} good, {} not",
            mesh["number"], proxies["synced"], proxies["connected"], visits.good, visits.bad
        );
        for finding in findings {
            let word = |key: &str| finding[key].as_str().unwrap_or_default();
            text += &format!("\n{} ({}): {}", word("code"), word("origin"), word("message"));
        }
        text
    }
}
