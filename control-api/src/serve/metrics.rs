//! What the control plane counts, by istiod's names where it has them.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result, TextEncoder,
};
use xds::type_url::ResourceType;

use super::world::World;
use crate::model::Mesh;
use crate::model::kind::Kind;
use crate::validate::code::Level;

/// istiod's buckets for what takes seconds.
const SECONDS: [f64; 8] = [0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// istiod's buckets for what a proxy waits.
const WAITS: [f64; 8] = [0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const BYTES: [f64; 6] = [1.0, 10e3, 1e6, 4e6, 10e6, 40e6];

/// Every statistic.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    mesh: OfTheMesh,
    proxies: OfProxies,
}

#[derive(Debug)]
struct OfTheMesh {
    number: IntGauge,
    services: IntGauge,
    virtual_services: IntGauge,
    rejected_configs: IntGauge,
    findings: IntGaugeVec,
    debounce: Histogram,
}

#[derive(Debug)]
struct OfProxies {
    connected: IntGaugeVec,
    translations: IntCounterVec,
    queue: Histogram,
    pushes: IntCounterVec,
    push_time: HistogramVec,
    config_size: HistogramVec,
    convergence: Histogram,
    rejects: IntCounterVec,
    rejecting: [(ResourceType, IntGaugeVec); 4],
    expired_nonces: IntCounterVec,
}

impl Metrics {
    /// All of them, at zero, shown by `registry`.
    ///
    /// # Errors
    /// Two have one name.
    pub fn new(registry: Registry) -> Result<Self> {
        let all = Made(&registry);
        let mesh = all.of_the_mesh()?;
        let proxies = all.of_proxies()?;
        Ok(Self { registry, mesh, proxies })
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// One cannot be written.
    pub fn text(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// A mesh is served, so long after the first change that made it.
    pub(super) fn published(&self, world: &World) {
        let mesh: &Mesh = &world.mesh;
        let services = [Kind::Service, Kind::ServiceEntry].map(|kind| mesh.of_kind(kind).len());
        self.mesh.services.set(count(services.iter().sum()));
        self.mesh.virtual_services.set(count(mesh.of_kind(Kind::VirtualService).len()));
        self.mesh.number.set(i64::try_from(world.number).unwrap_or(i64::MAX));
        self.mesh.debounce.observe(world.since.elapsed().as_secs_f64());
        for level in [Level::Error, Level::Warning, Level::Info] {
            let number = world.findings.iter().filter(|it| it.level() == level).count();
            self.mesh
                .findings
                .with_label_values(&[level.to_string().to_lowercase()])
                .set(count(number));
            if level == Level::Error {
                self.mesh.rejected_configs.set(count(number));
            }
        }
    }

    /// A proxy has waited for its turn.
    pub(super) fn queued(&self, waited: Duration) {
        self.proxies.queue.observe(waited.as_secs_f64());
    }

    /// A proxy's configuration was computed; whether it is another one.
    pub(super) fn translated(&self, changed: &[ResourceType]) {
        let result = if changed.is_empty() { "unchanged" } else { "changed" };
        self.proxies.translations.with_label_values(&[result]).inc();
    }

    /// A proxy's configuration could not be computed.
    pub(super) fn translation_failed(&self) {
        self.proxies.translations.with_label_values(&["failed"]).inc();
    }

    /// A proxy has come (1) or gone (-1).
    pub(super) fn connected(&self, version: &str, change: i64) {
        // Versions are what clients say they are: what is gone must leave nothing behind.
        let version: String = version.chars().take(64).collect();
        let gauge = self.proxies.connected.with_label_values(&[&version]);
        gauge.add(change);
        if gauge.get() <= 0 {
            let _ = self.proxies.connected.remove_label_values(&[&version]);
        }
    }

    /// A response was sent.
    pub(super) fn pushed(&self, kind: ResourceType, bytes: usize, took: Duration) {
        let name = label(kind);
        self.proxies.pushes.with_label_values(&[name]).inc();
        self.proxies.push_time.with_label_values(&[name]).observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a size in a histogram")]
        self.proxies.config_size.with_label_values(&[name]).observe(bytes as f64);
    }

    /// A response could not be sent.
    pub(super) fn not_sent(&self, kind: ResourceType) {
        self.proxies.pushes.with_label_values(&[format!("{}_senderr", label(kind))]).inc();
    }

    /// A proxy has all of a change.
    pub(super) fn converged(&self, took: Duration) {
        self.proxies.convergence.observe(took.as_secs_f64());
    }

    /// A proxy has refused a response.
    pub(super) fn rejected(&self, kind: ResourceType, node: &str, code: &str) {
        self.proxies.rejects.with_label_values(&[label(kind)]).inc();
        if let Some(gauge) = self.rejecting(kind) {
            gauge.with_label_values(&[node, code]).set(1);
        }
    }

    /// A proxy refuses nothing of a kind any more, or is gone.
    pub(super) fn no_longer_rejected(&self, kind: ResourceType, node: &str, code: &str) {
        if let Some(gauge) = self.rejecting(kind) {
            // It may never have been there.
            let _ = gauge.remove_label_values(&[node, code]);
        }
    }

    /// A request answers what is no longer the last response.
    pub(super) fn stale(&self, kind: ResourceType) {
        self.proxies.expired_nonces.with_label_values(&[label(kind)]).inc();
    }

    fn rejecting(&self, kind: ResourceType) -> Option<&IntGaugeVec> {
        self.proxies.rejecting.iter().find(|(it, _)| *it == kind).map(|(_, gauge)| gauge)
    }
}

/// A kind as istiod's labels have it.
pub(super) fn label(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cds",
        ResourceType::Endpoints => "eds",
        ResourceType::Secret => "sds",
        ResourceType::Listener => "lds",
        ResourceType::ExtensionConfig => "ecds",
        ResourceType::Routes => "rds",
        ResourceType::VirtualHost => "vhds",
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes statistics of a registry.
struct Made<'r>(&'r Registry);

impl Made<'_> {
    fn of_the_mesh(&self) -> Result<OfTheMesh> {
        let debounced = "Seconds from the first change of a series until it is served.";
        Ok(OfTheMesh {
            number: self.gauge("outrigger_control_mesh", "Number of the mesh that is served.")?,
            services: self.gauge("pilot_services", "Services that are known.")?,
            virtual_services: self
                .gauge("pilot_virt_services", "VirtualServices that are known.")?,
            rejected_configs: self
                .gauge("pilot_total_rejected_configs", "Findings that are errors.")?,
            findings: self.gauges(
                "outrigger_control_findings",
                "What analyze says of the mesh.",
                &["level"],
            )?,
            debounce: self.histogram("pilot_debounce_time", debounced, &SECONDS)?,
        })
    }

    fn of_proxies(&self) -> Result<OfProxies> {
        let translated = "What became of computing a proxy's configuration.";
        let queued = "Seconds that a proxy's configuration waits to be computed.";
        let pushed = "Responses sent, and with _senderr those that could not be.";
        let converged = "Seconds from a change until a proxy has accepted all of it.";
        let expired = "Requests that answer what is no longer the last response.";
        Ok(OfProxies {
            connected: self.gauges(
                "pilot_xds",
                "Proxies that are connected, by version.",
                &["version"],
            )?,
            translations: self.counters(
                "outrigger_control_translations_total",
                translated,
                "result",
            )?,
            queue: self.histogram("pilot_proxy_queue_time", queued, &WAITS)?,
            pushes: self.counters("pilot_xds_pushes", pushed, "type")?,
            push_time: self.histograms(
                "pilot_xds_push_time",
                "Seconds that sending a response takes.",
                &SECONDS,
            )?,
            config_size: self.histograms(
                "pilot_xds_config_size_bytes",
                "Sizes of responses.",
                &BYTES,
            )?,
            convergence: self.histogram("pilot_proxy_convergence_time", converged, &WAITS)?,
            rejects: self.counters(
                "pilot_total_xds_rejects",
                "Responses that proxies refused.",
                "type",
            )?,
            rejecting: [
                self.rejecting(ResourceType::Cluster)?,
                self.rejecting(ResourceType::Endpoints)?,
                self.rejecting(ResourceType::Listener)?,
                self.rejecting(ResourceType::Routes)?,
            ],
            expired_nonces: self.counters("pilot_xds_expired_nonce", expired, "type")?,
        })
    }

    fn rejecting(&self, kind: ResourceType) -> Result<(ResourceType, IntGaugeVec)> {
        let name = format!("pilot_xds_{}_reject", label(kind));
        let about = format!("Whether a proxy refuses its {kind}, and with which gRPC code.");
        Ok((kind, self.gauges(&name, &about, &["node", "err"])?))
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, about: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(name, about)?)
    }

    fn gauges(&self, name: &str, about: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, about), labels)?)
    }

    fn counters(&self, name: &str, about: &str, by: &str) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, about), &[by])?)
    }

    fn histogram(&self, name: &str, about: &str, buckets: &[f64]) -> Result<Histogram> {
        let options = HistogramOpts::new(name, about).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options)?)
    }

    fn histograms(&self, name: &str, about: &str, buckets: &[f64]) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, about).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, &["type"])?)
    }
}
