//! What the service that signs certificates counts, by istiod's names.

use std::time::SystemTime;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::Failure;
use crate::serve::authority::Current;

/// Begins each name.
const PREFIX: &str = "citadel_server_";

/// What is counted.
#[derive(Debug, Clone)]
pub struct CaMetrics {
    pub(super) requests: IntCounter,
    pub(super) unauthenticated: IntCounter,
    pub(super) limited: IntCounter,
    pub(super) signed: IntCounter,
    csr_errors: IntCounter,
    sign_errors: IntCounterVec,
    root_expiry: IntGauge,
    root_left: IntGauge,
    chain_expiry: IntGauge,
    chain_left: IntGauge,
}

impl CaMetrics {
    /// Counters that `registry` shows.
    ///
    /// # Errors
    /// If it shows others of these names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("{PREFIX}{name}"), help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("{PREFIX}{name}"), help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let errors =
            Opts::new(format!("{PREFIX}csr_sign_err_count"), "Requests that could not be signed.");
        let sign_errors = IntCounterVec::new(errors, &["error"])?;
        registry.register(Box::new(sign_errors.clone()))?;
        Ok(Self {
            requests: counter("csr_count", "Certificate requests received.")?,
            unauthenticated: counter(
                "authentication_failure_count",
                "Requests of unknown callers.",
            )?,
            limited: counter("rate_limited_count", "Requests of workloads that ask too often.")?,
            signed: counter("success_cert_issuance_count", "Certificates signed.")?,
            csr_errors: counter("csr_parsing_err_count", "Requests that cannot be read.")?,
            sign_errors,
            root_expiry: gauge(
                "root_cert_expiry_timestamp",
                "When the first root expires, in seconds since 1970.",
            )?,
            root_left: gauge(
                "root_cert_expiry_seconds",
                "Seconds until the first root expires, negative once it has.",
            )?,
            chain_left: gauge(
                "cert_chain_expiry_seconds",
                "Seconds until the authority or what is above it expires, negative once it has.",
            )?,
            chain_expiry: gauge(
                "cert_chain_expiry_timestamp",
                "When the authority or what is above it expires, in seconds since 1970.",
            )?,
        })
    }

    /// Notes when what the authority signs with ends to be valid, and how long that is from now.
    pub fn note_expiry(&self, current: &Current) {
        let seconds = |moment: SystemTime| {
            let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let now = seconds(SystemTime::now());
        let (root, chain) = current.ends();
        self.root_left.set(root.map_or(-1, |end| seconds(end) - now));
        self.chain_left.set(seconds(chain) - now);
        self.root_expiry.set(root.map_or(-1, seconds));
        self.chain_expiry.set(seconds(chain));
    }

    pub(super) fn failed(&self, failure: Failure) {
        let label = match failure {
            Failure::Csr => {
                self.csr_errors.inc();
                return;
            }
            Failure::Signing => "CERT_GEN_ERROR",
            Failure::NotReady => "CA_NOT_READY",
        };
        self.sign_errors.with_label_values(&[label]).inc();
    }
}
