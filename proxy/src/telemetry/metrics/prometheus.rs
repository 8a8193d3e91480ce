//! Samples in Prometheus' text format, with Envoy's names and labels.

use std::borrow::Cow;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

use super::cell::{BUCKET_BOUNDS, Distribution};
use super::sample::{AGENT, Sample, Tag, Value};

/// Media type of what [`prometheus()`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Writes `samples`: counters, then gauges, then histograms, each by name.
///
/// One metric family is built at a time, so that memory is bounded by the largest and not by all.
pub fn prometheus(mut samples: Vec<Sample>) -> String {
    samples.sort_by(|a, b| family(a).cmp(&family(b)).then_with(|| a.scope.cmp(&b.scope)));
    let mut out = Vec::new();
    for members in samples.chunk_by(|a, b| family(a) == family(b)) {
        // Fails for a family without name or members, which this cannot be.
        let _ = TextEncoder::new().encode(&[metric_family(members)], &mut out);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What samples of one family share, in the order of the output.
fn family(sample: &Sample) -> (u8, Cow<'static, str>, &'static str, &'static str) {
    let kind = match sample.value {
        Value::Counter(_) => 0,
        Value::Gauge(_) => 1,
        Value::Histogram(_) => 2,
    };
    let suffix = match sample.tag {
        Tag::None | Tag::Code(_) => "",
        Tag::Class(_) => "_xx",
        Tag::Completed => "_completed",
    };
    (kind, sample.scope.family().0, sample.name, suffix)
}

fn metric_family(members: &[Sample]) -> MetricFamily {
    let mut result = MetricFamily::default();
    let Some(first) = members.first() else { return result };
    let (_, prefix, name, suffix) = family(first);
    let envoy = if prefix == AGENT { "" } else { "envoy_" };
    result.set_name(format!("{envoy}{prefix}{name}{suffix}").replace('.', "_"));
    result.set_help(match first.help.trim() {
        "" if prefix == AGENT => format!("Istio's {prefix}{name}."),
        "" => format!("Envoy's {prefix}{name}{suffix}."),
        help => help.to_owned(),
    });
    result.set_field_type(match first.value {
        Value::Counter(_) => MetricType::COUNTER,
        Value::Gauge(_) => MetricType::GAUGE,
        Value::Histogram(_) => MetricType::HISTOGRAM,
    });
    result.set_metric(members.iter().map(metric).collect());
    result
}

fn metric(sample: &Sample) -> Metric {
    let tag = match sample.tag {
        Tag::Code(code) => Some(label("envoy_response_code", &code.to_string())),
        Tag::Class(class) => Some(label("envoy_response_code_class", &class.to_string())),
        Tag::None | Tag::Completed => None,
    };
    let scope = sample.scope.family().1;
    let scope = scope.into_iter().map(|(name, value)| label(name, value));
    let mut metric = Metric::from_label(tag.into_iter().chain(scope).collect());
    // Prometheus knows only floating point; counts above 2^53 lose their last digits.
    match &sample.value {
        Value::Counter(value) => {
            let mut counter = Counter::default();
            counter.set_value(*value as f64);
            metric.set_counter(counter);
        }
        Value::Gauge(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*value as f64);
            metric.set_gauge(gauge);
        }
        Value::Histogram(distribution) => metric.set_histogram(histogram(distribution)),
    }
    metric
}

fn histogram(distribution: &Distribution) -> Histogram {
    let mut cumulative = 0;
    let buckets = BUCKET_BOUNDS.iter().zip(&distribution.buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count());
    histogram.set_sample_sum(distribution.sum as f64);
    histogram
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::super::{Metrics, Samples, Scope};
    use super::*;

    /// Every kind of statistic there is, with some traffic and a label value that needs escaping.
    fn busy() -> (Metrics, impl Sized) {
        let metrics = Metrics::default();
        let shards =
            (metrics.cluster("c1"), metrics.http("ing"), metrics.listener("127.0.0.1:19802"));
        let hostile = metrics.cluster("a\"b\\c\nd");
        shards.0.response(503, false);
        shards.0.upstream_cx_connect_ms.record(7);
        shards.0.ssl_handshake.inc();
        shards.1.response(503);
        shards.1.downstream_rq_time.record(30);
        let subscriptions = [Scope::Cds, Scope::Lds, Scope::rds("ing", "r1"), Scope::sds("s1")]
            .map(|scope| metrics.subscription(scope));
        struct Membership;
        impl super::super::Probe for Membership {
            fn collect(&self, out: &mut Samples) {
                out.gauge(&Scope::cluster("c1"), "circuit_breakers.default.rq_open", 0);
                out.counter(&Scope::cluster("c1"), "membership_change", 1);
            }
        }
        metrics.register(std::sync::Arc::new(Membership));
        (metrics, (shards, hostile, subscriptions))
    }

    #[test]
    fn names_and_labels_are_envoys() {
        let (metrics, _shards) = busy();
        let text = prometheus(metrics.collect(&BTreeSet::new()));
        for line in [
            "envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"c1\"} 1",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"c1\"} 1",
            "envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"c1\"} 1",
            "# TYPE envoy_cluster_upstream_cx_connect_ms histogram",
            "envoy_cluster_upstream_cx_connect_ms_bucket{envoy_cluster_name=\"c1\",le=\"5\"} 0",
            "envoy_cluster_upstream_cx_connect_ms_bucket{envoy_cluster_name=\"c1\",le=\"10\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_bucket{envoy_cluster_name=\"c1\",le=\"3600000\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_bucket{envoy_cluster_name=\"c1\",le=\"+Inf\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_sum{envoy_cluster_name=\"c1\"} 7",
            "envoy_cluster_ssl_handshake{envoy_cluster_name=\"c1\"} 1",
            "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"ing\"} 0",
            "envoy_http_rds_update_success{envoy_rds_route_config=\"r1\",envoy_http_conn_manager_prefix=\"ing\"} 0",
            "envoy_listener_downstream_cx_total{envoy_listener_address=\"127.0.0.1_19802\"} 0",
            "envoy_cluster_manager_cds_update_success 0",
            "envoy_listener_manager_lds_update_success 0",
            "envoy_listener_manager_listener_added 0",
            "envoy_cluster_circuit_breakers_default_rq_open{envoy_cluster_name=\"c1\"} 0",
            "envoy_cluster_membership_change{envoy_cluster_name=\"c1\"} 1",
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\\\"b\\\\c\\nd\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "missing: {line}\n{text}");
        }
    }

    /// Types by name, of the families in a Prometheus text.
    fn types(text: &str) -> BTreeMap<&str, &str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
    }

    #[test]
    fn a_family_envoy_also_has_is_of_envoys_type() {
        let reference = include_str!("reference/envoy-1.40.types");
        let (metrics, _shards) = busy();
        let text = prometheus(metrics.collect(&BTreeSet::new()));
        let (ours, envoys) = (types(&text), types(reference));
        let shared = ours.iter().filter(|(name, _)| envoys.contains_key(*name));
        assert!(shared.clone().count() > 100, "the reference is not what it was");
        for (name, kind) in shared {
            assert_eq!(Some(kind), envoys.get(name), "{name}");
        }
    }

    /// What promtool says of Envoy's own names, which are not ours to change.
    const ENVOYS_OWN: [&str; 4] = [
        "counter metrics should have \"_total\" suffix",
        "non-counter metrics should not have \"_total\" suffix",
        "metric names should not contain abbreviated units",
        "use base unit \"seconds\" instead of \"days\"",
    ];

    #[test]
    fn promtool_finds_nothing_but_envoys_naming() {
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: promtool is not installed (Debian package prometheus)");
            return;
        };
        let (metrics, _shards) = busy();
        let text = prometheus(metrics.collect(&BTreeSet::new()));
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let other: Vec<_> = said
            .lines()
            .filter(|line| !ENVOYS_OWN.iter().any(|known| line.ends_with(known)))
            .collect();
        assert!(other.is_empty(), "{other:#?}");
        // 1 would be text that Prometheus cannot read.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}", output.status);
    }
}
