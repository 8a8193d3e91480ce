//! `/clusters`: every cluster with its limits and its endpoints, line by line or as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::AdminState;
use super::listeners::address;
use super::parameters::Parameters;
use super::reply::Reply;
use crate::cluster::{ClusterView, HealthFlags, HostView};
use crate::config::endpoint::{HealthStatus, Locality};

pub(super) fn answer(state: &AdminState, parameters: &Parameters) -> Reply {
    let filter = match parameters.regex("filter", "Invalid re2 regex") {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let mut clusters = state.clusters.view();
    if let Some(filter) = filter {
        clusters.retain(|cluster| filter.is_match(&cluster.spec.config.name));
    }
    let fixed = state.configuration.static_clusters();
    let listed = clusters
        .iter()
        .map(|view| Listed { view, added_via_api: !fixed.contains(&*view.spec.config.name) });
    if parameters.get("format") == Some("json") {
        let statuses: Vec<_> = listed.map(|cluster| cluster.json()).collect();
        return Reply::json(&json!({"cluster_statuses": statuses}));
    }
    let mut out = String::new();
    for cluster in listed {
        // Writing to a string cannot fail.
        let _ = cluster.text(&mut out);
    }
    Reply::text(out)
}

/// A cluster as it is listed.
struct Listed<'a> {
    view: &'a ClusterView,
    /// Whether it was discovered, rather than part of the bootstrap.
    added_via_api: bool,
}

impl Listed<'_> {
    fn text(&self, out: &mut String) -> std::fmt::Result {
        let config = &self.view.spec.config;
        let name = &config.name;
        writeln!(out, "{name}::observability_name::{}", config.stat_name)?;
        for (kind, rate) in RATES {
            let (average, threshold) = self.rates(rate).unzip();
            writeln!(out, "{name}::outlier::{kind}success_rate_average::{}", known(average))?;
            let threshold = known(threshold);
            writeln!(out, "{name}::outlier::{kind}success_rate_ejection_threshold::{threshold}")?;
        }
        for (priority, limits) in ["default", "high"].iter().zip(&*config.circuit_breakers) {
            let prefix = format!("{name}::{priority}_priority");
            writeln!(out, "{prefix}::max_connections::{}", limits.max_connections)?;
            writeln!(out, "{prefix}::max_pending_requests::{}", limits.max_pending_requests)?;
            writeln!(out, "{prefix}::max_requests::{}", limits.max_requests)?;
            writeln!(out, "{prefix}::max_retries::{}", limits.max_retries)?;
        }
        writeln!(out, "{name}::added_via_api::{}", self.added_via_api)?;
        self.view.hosts.iter().try_for_each(|host| text_host(name, host, out))
    }

    fn json(&self) -> Value {
        let config = &self.view.spec.config;
        let thresholds = [None, Some("HIGH")].into_iter().zip(&*config.circuit_breakers);
        let thresholds = thresholds.map(|(priority, limits)| {
            without_defaults(json!({
                "priority": priority,
                "max_connections": limits.max_connections,
                "max_pending_requests": limits.max_pending_requests,
                "max_requests": limits.max_requests,
                "max_retries": limits.max_retries,
            }))
        });
        let [all, local] = RATES.map(|(_, rate)| percent(self.rates(rate).map(|(_, low)| low)));
        without_defaults(json!({
            "name": &*config.name,
            "added_via_api": self.added_via_api,
            "success_rate_ejection_threshold": all,
            "host_statuses": self.view.hosts.iter().map(json_host).collect::<Vec<_>>(),
            "local_origin_success_rate_ejection_threshold": local,
            "circuit_breakers": {"thresholds": thresholds.collect::<Vec<_>>()},
            "observability_name": &*config.stat_name,
        }))
    }

    /// Average of the hosts' rates, and the rate below which outlier detection ejects, in percent; none
    /// if too few hosts have a rate.
    fn rates(&self, rate: fn(&HostView) -> Option<f64>) -> Option<(f64, f64)> {
        let config = self.view.spec.config.outlier_detection.as_ref()?;
        let rates: Vec<f64> = self.view.hosts.iter().filter_map(rate).collect();
        let needed = config.success_rate.minimum_hosts.max(1);
        if rates.len() < usize::try_from(needed).unwrap_or(usize::MAX) {
            return None;
        }
        let count = rates.len() as f64;
        let average = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - average).powi(2)).sum::<f64>() / count;
        let factor = f64::from(config.success_rate_stdev_factor) / 1000.0;
        Some((average, average - variance.sqrt() * factor))
    }
}

/// A success rate of a host, with what stands before its name.
type Rate = (&'static str, fn(&HostView) -> Option<f64>);

const RATES: [Rate; 2] =
    [("", |host| host.success_rate), ("local_origin_", |host| host.local_success_rate)];

/// A rate that is not known is -1.
fn known(rate: Option<f64>) -> f64 {
    rate.unwrap_or(-1.0)
}

fn text_host(cluster: &str, host: &HostView, out: &mut String) -> std::fmt::Result {
    let prefix = format!("{cluster}::{}", host.address);
    let [counters, gauges] = numbers(host);
    let mut numbers: Vec<_> = counters.into_iter().chain(gauges).collect();
    numbers.sort_unstable();
    for (name, value) in numbers {
        writeln!(out, "{prefix}::{name}::{value}")?;
    }
    let Locality { region, zone, sub_zone, priority, weight: _ } = &*host.endpoint.locality;
    writeln!(out, "{prefix}::hostname::{}", host.endpoint.hostname)?;
    writeln!(out, "{prefix}::health_flags::{}", health_flags(host))?;
    writeln!(out, "{prefix}::weight::{}", host.endpoint.weight)?;
    writeln!(out, "{prefix}::region::{region}")?;
    writeln!(out, "{prefix}::zone::{zone}")?;
    writeln!(out, "{prefix}::sub_zone::{sub_zone}")?;
    writeln!(out, "{prefix}::canary::false")?;
    writeln!(out, "{prefix}::priority::{priority}")?;
    writeln!(out, "{prefix}::success_rate::{}", known(host.success_rate))?;
    writeln!(out, "{prefix}::local_origin_success_rate::{}", known(host.local_success_rate))
}

fn health_flags(host: &HostView) -> String {
    let mut flags = String::new();
    for name in host.health.names() {
        flags.push('/');
        flags.push_str(name);
    }
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// Counters and gauges of a host, each by name.
fn numbers(host: &HostView) -> [Vec<(&'static str, u64)>; 2] {
    let totals = &host.totals;
    let counters = vec![
        ("cx_connect_fail", totals.cx_connect_fail),
        ("cx_total", totals.cx_total),
        ("rq_error", totals.rq_error),
        ("rq_success", totals.rq_success),
        ("rq_timeout", totals.rq_timeout),
        ("rq_total", totals.rq_total),
    ];
    let open = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
    [counters, vec![("cx_active", open(totals.cx_active)), ("rq_active", open(totals.rq_active))]]
}

fn json_host(host: &HostView) -> Value {
    let [counters, gauges] = numbers(host);
    let stat = |kind: Option<&str>, name: &str, value: u64| {
        let value = (value > 0).then(|| value.to_string());
        without_defaults(json!({"type": kind, "name": name, "value": value}))
    };
    let counters = counters.into_iter().map(|(name, value)| stat(None, name, value));
    let gauges = gauges.into_iter().map(|(name, value)| stat(Some("GAUGE"), name, value));
    let Locality { region, zone, sub_zone, priority, weight: _ } = &*host.endpoint.locality;
    without_defaults(json!({
        "address": address(&host.address),
        "stats": counters.chain(gauges).collect::<Vec<_>>(),
        "health_status": health_status(host),
        "success_rate": percent(host.success_rate),
        "weight": host.endpoint.weight,
        "hostname": &*host.endpoint.hostname,
        "priority": priority,
        "local_origin_success_rate": percent(host.local_success_rate),
        "locality": without_defaults(json!({"region": region, "zone": zone, "sub_zone": sub_zone})),
    }))
}

/// Envoy's `HostHealthStatus`.
fn health_status(host: &HostView) -> Value {
    let has = |flag: HealthFlags| host.health.has(flag);
    without_defaults(json!({
        "failed_active_health_check": has(HealthFlags::FAILED_ACTIVE_HC),
        "failed_outlier_check": has(HealthFlags::FAILED_OUTLIER_CHECK),
        "failed_active_degraded_check": has(HealthFlags::DEGRADED_ACTIVE_HC),
        "pending_dynamic_removal": has(HealthFlags::PENDING_DYNAMIC_REMOVAL),
        "pending_active_hc": has(HealthFlags::PENDING_ACTIVE_HC),
        "excluded_via_immediate_hc_fail": has(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL),
        "active_hc_timeout": has(HealthFlags::ACTIVE_HC_TIMEOUT),
        "eds_health_status": match host.endpoint.health {
            HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
            HealthStatus::Unhealthy | HealthStatus::Timeout => "UNHEALTHY",
            HealthStatus::Draining => "DRAINING",
            HealthStatus::Degraded => "DEGRADED",
        },
    }))
}

/// Envoy's `type.v3.Percent`.
fn percent(rate: Option<f64>) -> Option<Value> {
    rate.map(|value| json!({"value": value}))
}

/// The object without fields that hold protobuf's default, which Envoy does not print.
fn without_defaults(object: Value) -> Value {
    let Value::Object(mut fields) = object else { return object };
    fields.retain(|_, value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_u64() != Some(0),
        Value::String(value) => !value.is_empty(),
        Value::Array(value) => !value.is_empty(),
        Value::Object(_) => true,
    });
    Value::Object(fields)
}

#[cfg(test)]
mod tests;
