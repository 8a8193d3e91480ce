//! The agent: makes the workload's key, has an Istio CA service certify it, and renews that for as long as the process
//! runs. The key stays in memory, unless a directory is named for it.

mod ca;
mod held;
mod kept;
pub(super) mod options;
mod statistics;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use certs::rotation::{Attempts, Rotation};
use certs::{Key, SpiffeId, Validity, bundle, csr};
use tokio::sync::watch;

use self::ca::{CaService, Proof};
use self::held::Held;
use self::options::AgentOptions;
use self::statistics::Statistics;
use crate::discovery::Identity;
use crate::telemetry::metrics::Metrics;

/// The longest pause while there is no certificate at all: nothing is served that needs one.
const LONGEST_FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Files of a certificate that was provisioned, as Istio's agent names them.
const PROVISIONED: [&str; 2] = ["cert-chain.pem", "key.pem"];

/// Obtains and renews one workload's certificate.
pub(super) struct Agent {
    ca: CaService,
    id: SpiffeId,
    key: certs::KeyKind,
    token: PathBuf,
    provisioned: Option<PathBuf>,
    /// Where what is obtained is kept for the next run.
    kept_in: Option<PathBuf>,
    lifetime: Duration,
    rotation: Rotation,
    statistics: Arc<Statistics>,
    obtained: watch::Sender<Option<Identity>>,
}

impl Agent {
    /// The agent that the options ask for, if they ask for one, and where it tells what it obtained.
    ///
    /// # Errors
    /// The option that cannot be honoured.
    pub(super) fn new(
        options: &AgentOptions,
        metrics: &Metrics,
    ) -> Result<Option<(Self, watch::Receiver<Option<Identity>>)>> {
        let Some(address) = options.address()? else { return Ok(None) };
        options.check()?;
        let id = SpiffeId::of_service_account(
            &options.trust_domain,
            &options.workload_namespace,
            &options.service_account,
        );
        let id = id.context("TRUST_DOMAIN, POD_NAMESPACE and SERVICE_ACCOUNT make no SPIFFE id")?;
        let statistics = Arc::new(Statistics::default());
        metrics.register(Arc::clone(&statistics) as _);
        let (obtained, receiver) = watch::channel(None);
        tracing::info!(%address, %id, "the agent gets the workload's certificate from a CA");
        let agent = Self {
            ca: CaService::new(options, address)?,
            id,
            key: options.key_kind()?,
            token: options.token_path(),
            provisioned: options.provisioned_certificate.clone(),
            kept_in: options.output_certs.clone().filter(|path| !path.as_os_str().is_empty()),
            lifetime: options.certificate_lifetime,
            rotation: Rotation {
                renew_at: options.renew_at,
                jitter: options.renew_jitter,
                ..Rotation::default()
            },
            statistics,
            obtained,
        };
        Ok(Some((agent, receiver)))
    }

    /// Obtains a certificate, and renews it. One that cannot be renewed stays in use: nothing is better than it.
    pub(super) async fn run(self) {
        let mut held = self.of_last_run();
        // A new process has a new key, if it can.
        let mut first = true;
        let mut attempts = Attempts::default();
        loop {
            let now = SystemTime::now();
            let decision = match &held {
                Some(held) => self.rotation.decide(held.validity, attempts, now, held.chance),
                None => {
                    let nothing = Validity {
                        not_before: SystemTime::UNIX_EPOCH,
                        not_after: SystemTime::UNIX_EPOCH,
                    };
                    let rotation = Rotation { longest_pause: LONGEST_FIRST_PAUSE, ..self.rotation };
                    rotation.decide(nothing, attempts, now, fastrand::f64())
                }
            };
            if !std::mem::take(&mut first) && !decision.renew {
                tokio::time::sleep(decision.sleep).await;
                continue;
            }
            attempts.last = Some(now);
            match self.obtain(held.as_ref()).await {
                Ok(next) => {
                    attempts.failed = 0;
                    self.take(&next);
                    self.keep(&next);
                    held = Some(next);
                }
                Err(error) => {
                    attempts.failed = attempts.failed.saturating_add(1);
                    self.complain(&error, held.as_ref());
                }
            }
        }
    }

    fn take(&self, held: &Held) {
        self.statistics.took(held);
        let left = held.validity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        tracing::info!(id = %self.id, valid_for = ?left, "the workload has a new certificate");
        self.obtained.send_replace(Some(held.identity()));
    }

    /// What was kept by a former run, in use until there is another one.
    fn of_last_run(&self) -> Option<Held> {
        let directory = self.kept_in.as_ref()?;
        let unusable = |error: &String| {
            let directory = directory.display();
            tracing::warn!(%directory, error, "the certificate of the last run is not used");
        };
        let held = kept::read(directory, &self.id).inspect_err(unusable).ok()??;
        self.take(&held);
        Some(held)
    }

    fn keep(&self, held: &Held) {
        let Some(directory) = &self.kept_in else { return };
        if let Err(error) = kept::write(directory, held) {
            tracing::warn!(error, "the certificate cannot be kept; check --output-certs");
        }
    }

    fn complain(&self, error: &str, held: Option<&Held>) {
        let left = held.map(|held| held.validity.not_after.duration_since(SystemTime::now()));
        match left {
            None => tracing::warn!(
                error,
                "no certificate for the workload yet: what needs one is not served"
            ),
            Some(Ok(left)) => {
                tracing::warn!(error, valid_for = ?left, "the workload's certificate cannot be renewed, the last one stays");
            }
            Some(Err(_)) => {
                tracing::error!(
                    error,
                    "the workload's certificate HAS EXPIRED and cannot be renewed: peers refuse it"
                );
            }
        }
    }

    /// A certificate for a new key: by the token, or if there is none that the CA takes, by a certificate.
    async fn obtain(&self, held: Option<&Held>) -> Result<Held, String> {
        let key = Key::generate(self.key).map_err(|error| error.to_string())?;
        let request = csr::build(&key, &self.id).map_err(|error| error.to_string())?;
        let token = match tokio::fs::read_to_string(&self.token).await {
            Ok(token) if !token.trim().is_empty() => Ok(Proof::Token(token.trim().to_owned())),
            Ok(_) => Err(format!("{} is empty", self.token.display())),
            Err(error) => Err(format!("{}: {error}", self.token.display())),
        };
        let why = match token {
            Ok(token) => match self.call(&request, &token).await {
                Ok(answer) => return held::from(&answer, &key),
                Err(failure) if failure.is_about_the_caller() => failure.text,
                Err(failure) => return Err(failure.text),
            },
            Err(missing) => missing,
        };
        let Some(certificate) = self.certificate(held) else {
            return Err(format!(
                "{why}; mount a service-account token with audience istio-ca (--ca-token), or a certificate (PROV_CERT)"
            ));
        };
        match self.call(&request, &certificate).await {
            Ok(answer) => held::from(&answer, &key),
            Err(failure) => Err(format!("by token: {why}; by certificate: {}", failure.text)),
        }
    }

    async fn call(&self, csr: &str, proof: &Proof) -> Result<Vec<String>, ca::Failure> {
        let started = std::time::Instant::now();
        let answer = self.ca.create_certificate(csr, self.lifetime, proof).await;
        self.statistics.called(answer.is_ok(), started.elapsed());
        answer
    }

    /// A certificate that still proves who this is: the one in use, or one that was provisioned.
    fn certificate(&self, held: Option<&Held>) -> Option<Proof> {
        let now = SystemTime::now();
        if let Some(held) = held.filter(|held| held.validity.contains(now)) {
            return Some(Proof::Certificate { chain: held.chain.clone(), key: held.key.clone() });
        }
        let [chain, key] =
            PROVISIONED.map(|name| self.provisioned.as_ref().map(|it| it.join(name)));
        let (chain, key) = (chain?, key?);
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "PROV_CERT"))
                .ok()
        };
        let (chain, key) = (read(&chain)?, read(&key)?);
        let valid =
            bundle::validities(&chain).is_ok_and(|all| all.iter().all(|it| it.contains(now)));
        valid.then_some(Proof::Certificate { chain, key })
    }
}
