//! Samples as Envoy's `/stats` prints them: `name: value` lines, or JSON.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::cell::{BUCKET_BOUNDS, Distribution};
use super::sample::{Sample, Value};

/// The quantiles of a histogram's summary.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// How `/stats` shows histograms (`histogram_buckets`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Buckets {
    /// Quantiles.
    #[default]
    Summary,
    /// Number of values in each bucket and all below.
    Cumulative,
    /// Number of values in each bucket.
    Disjoint,
}

/// A sample with its name in `/stats`.
type Named<'a> = (String, &'a Sample);

/// Writes counters and gauges by name, then histograms by name.
///
/// Envoy prints two numbers for each part of a histogram, of the last interval and of all time; here there
/// is no interval, and both say the same.
pub fn text(samples: &[Sample], buckets: Buckets) -> String {
    let (numbers, histograms) = sorted(samples);
    let mut out = String::new();
    for (name, sample) in numbers.into_iter().chain(histograms) {
        // Writing to a string cannot fail.
        let _ = match &sample.value {
            Value::Counter(value) => writeln!(out, "{name}: {value}"),
            Value::Gauge(value) => writeln!(out, "{name}: {value}"),
            Value::Histogram(distribution) => {
                writeln!(out, "{name}: {}", histogram(distribution, buckets))
            }
        };
    }
    out
}

/// The same as one JSON object of Envoy's shape.
pub fn json(samples: &[Sample], buckets: Buckets) -> String {
    let (numbers, histograms) = sorted(samples);
    let mut stats: Vec<Json> = numbers
        .into_iter()
        .map(|(name, sample)| match &sample.value {
            Value::Gauge(value) => json!({"name": name, "value": value}),
            Value::Counter(value) => json!({"name": name, "value": value}),
            Value::Histogram(_) => Json::Null,
        })
        .collect();
    if !histograms.is_empty() {
        stats.push(json!({"histograms": json_histograms(&histograms, buckets)}));
    }
    json!({"stats": stats}).to_string()
}

/// Counters and gauges, and apart from them histograms, each by name.
fn sorted(samples: &[Sample]) -> (Vec<Named<'_>>, Vec<Named<'_>>) {
    let mut all: Vec<Named<'_>> = samples.iter().map(|s| (s.to_string(), s)).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.into_iter().partition(|(_, sample)| !matches!(sample.value, Value::Histogram(_)))
}

fn histogram(distribution: &Distribution, buckets: Buckets) -> String {
    if distribution.count() == 0 {
        return "No recorded values".to_owned();
    }
    let parts: Vec<_> = match buckets {
        Buckets::Summary => QUANTILES
            .iter()
            .map(|percent| {
                let value = significant(distribution.quantile(percent / 100.0).unwrap_or(0.0));
                format!("P{percent}({value},{value})")
            })
            .collect(),
        Buckets::Cumulative | Buckets::Disjoint => counts(distribution, buckets)
            .map(|(bound, count)| format!("B{}({count},{count})", shortest(bound)))
            .collect(),
    };
    parts.join(" ")
}

fn json_histograms(histograms: &[Named<'_>], buckets: Buckets) -> Json {
    let each = histograms.iter().filter_map(|(name, sample)| match &sample.value {
        Value::Histogram(distribution) => Some((name, distribution)),
        Value::Counter(_) | Value::Gauge(_) => None,
    });
    match buckets {
        Buckets::Summary => {
            let quantiles = each.map(|(name, distribution)| {
                let values: Vec<_> = QUANTILES
                    .iter()
                    .map(|percent| distribution.quantile(percent / 100.0).map(significant))
                    .map(|value| json!({"cumulative": value, "interval": value}))
                    .collect();
                json!({"name": name, "values": values})
            });
            let quantiles: Vec<_> = quantiles.collect();
            json!({"supported_quantiles": QUANTILES, "computed_quantiles": quantiles})
        }
        Buckets::Cumulative | Buckets::Disjoint => Json::Array(
            each.map(|(name, distribution)| {
                let buckets: Vec<_> = counts(distribution, buckets)
                    .map(|(le, n)| json!({"upper_bound": le, "interval": n, "cumulative": n}))
                    .collect();
                json!({"name": name, "buckets": buckets})
            })
            .collect(),
        ),
    }
}

/// Each bound with the number of values up to it, cumulative or not.
fn counts(distribution: &Distribution, buckets: Buckets) -> impl Iterator<Item = (f64, u64)> {
    let mut below = 0;
    BUCKET_BOUNDS.iter().zip(&distribution.buckets).map(move |(bound, count)| {
        below += count;
        (*bound, if buckets == Buckets::Cumulative { below } else { *count })
    })
}

/// Six significant digits, as Envoy's output has.
fn significant(value: f64) -> f64 {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let scale = 10_f64.powf(5.0 - magnitude);
    (value * scale).round() / scale
}

/// A bound as C's `%g` prints it.
fn shortest(bound: f64) -> String {
    if bound < 1e6 {
        return bound.to_string();
    }
    let text = format!("{bound:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{mantissa}e+{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Metrics, Scope};
    use super::*;

    fn one_of_each() -> Vec<Sample> {
        let metrics = Metrics::default();
        let (cluster, http) = (metrics.cluster("c1"), metrics.http("ing"));
        cluster.upstream_rq_total.add(3);
        http.downstream_rq_active.inc();
        http.downstream_rq_time.record(0);
        http.downstream_rq_time.record(29);
        let shown = [
            "cluster.c1.upstream_rq_total",
            "cluster.c1.upstream_rq_time",
            "http.ing.downstream_rq_active",
            "http.ing.downstream_rq_time",
        ];
        let mut samples = metrics.collect(&BTreeSet::new());
        samples.retain(|sample| shown.contains(&sample.to_string().as_str()));
        samples
    }

    #[test]
    fn lines_are_sorted_with_histograms_last() {
        assert_eq!(
            text(&one_of_each(), Buckets::Summary),
            "cluster.c1.upstream_rq_total: 3\n\
             http.ing.downstream_rq_active: 1\n\
             cluster.c1.upstream_rq_time: No recorded values\n\
             http.ing.downstream_rq_time: P0(0,0) P25(0.25,0.25) P50(0.5,0.5) P75(27,27) \
             P90(28.2,28.2) P95(28.6,28.6) P99(28.92,28.92) P99.5(28.96,28.96) \
             P99.9(28.992,28.992) P100(29,29)\n"
        );
    }

    #[test]
    fn buckets_are_shown_as_envoy_shows_them() {
        let samples = one_of_each();
        let cumulative = text(&samples, Buckets::Cumulative);
        let line = cumulative.lines().last().unwrap();
        assert!(line.starts_with("http.ing.downstream_rq_time: B0.5(1,1) B1(1,1) B5(1,1)"));
        assert!(line.ends_with("B600000(2,2) B1.8e+06(2,2) B3.6e+06(2,2)"));
        let disjoint = text(&samples, Buckets::Disjoint);
        assert!(disjoint.ends_with(
            "B50(1,1) B100(0,0) B250(0,0) B500(0,0) B1000(0,0) \
            B2500(0,0) B5000(0,0) B10000(0,0) B30000(0,0) B60000(0,0) B300000(0,0) \
            B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)\n"
        ));
    }

    #[test]
    fn json_has_envoys_shape() {
        let json: Json = serde_json::from_str(&json(&one_of_each(), Buckets::Summary)).unwrap();
        let stats = &json["stats"];
        assert_eq!(stats[0], json!({"name": "cluster.c1.upstream_rq_total", "value": 3}));
        assert_eq!(stats[1], json!({"name": "http.ing.downstream_rq_active", "value": 1}));
        let histograms = &stats[2]["histograms"];
        assert_eq!(histograms["supported_quantiles"][7], 99.5);
        let computed = &histograms["computed_quantiles"];
        let none = json!({"cumulative": null, "interval": null});
        assert_eq!(computed[0]["values"][0], none);
        assert_eq!(computed[1]["name"], "http.ing.downstream_rq_time");
        assert_eq!(computed[1]["values"][9], json!({"cumulative": 29.0, "interval": 29.0}));
    }

    #[test]
    fn every_statistic_is_one_of_envoys_or_of_the_few_that_are_ours() {
        const OURS: [&str; 4] = [
            "server.bootstrap_reload.attempt",
            "server.bootstrap_reload.success",
            "server.bootstrap_reload.failure",
            "filesystem.write_dropped",
        ];
        let reference = include_str!("reference/envoy-1.40.stats");
        let metrics = Metrics::default();
        let _shards = (
            metrics.cluster("c1"),
            metrics.http("ing"),
            metrics.listener("127.0.0.1:19802"),
            metrics.subscription(Scope::cluster("c1")),
        );
        let unknown: Vec<_> = metrics
            .collect(&BTreeSet::new())
            .iter()
            .map(ToString::to_string)
            .filter(|name| !reference.lines().any(|line| line == name) && !OURS.contains(&&**name))
            .collect();
        // Created on first use there, which the reference never had.
        assert_eq!(
            unknown,
            [
                "cluster.c1.upstream_rq_time",
                "cluster.c1.update_rejected",
                "cluster.c1.init_fetch_timeout",
                "cluster.c1.update_time",
                "downstream_cx_proxy_proto_error",
            ]
        );
    }
}
