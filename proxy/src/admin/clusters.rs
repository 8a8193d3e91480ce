//! `/clusters`: every cluster with its limits and its endpoints, line by line or as JSON.

use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::AdminState;
use super::listeners::socket_address;
use super::parameters::Parameters;
use super::reply::Reply;
use crate::config::Name;
use crate::config::cluster::Thresholds;
use crate::config::endpoint::{HealthStatus, Locality};

/// A cluster as it is now.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// Its name.
    pub name: Name,
    /// Its name in statistics.
    pub stat_name: Name,
    /// Whether it was discovered, rather than part of the bootstrap.
    pub added_via_api: bool,
    /// Limits of priority DEFAULT and HIGH.
    pub thresholds: [Thresholds; 2],
    /// Results of the last outlier sweep over all answers.
    pub success_rate: SuccessRates,
    /// The same over failures to get an answer at all.
    pub local_origin_success_rate: SuccessRates,
    /// Endpoints in the order they are to be shown.
    pub hosts: Vec<HostStatus>,
}

/// What success-rate outlier detection found over a cluster; none while it has too little to go by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SuccessRates {
    /// Mean of all hosts, in percent.
    pub average: Option<f64>,
    /// Below this a host is ejected, in percent.
    pub ejection_threshold: Option<f64>,
}

/// An endpoint as it is now.
#[derive(Debug, Clone)]
pub struct HostStatus {
    /// Its address.
    pub address: SocketAddr,
    /// The name it was configured by; empty if none.
    pub hostname: Name,
    /// Its share of traffic.
    pub weight: u32,
    /// Where it is, and its priority.
    pub locality: Locality,
    /// Health as configured or discovered.
    pub health: HealthStatus,
    /// Whether outlier detection has ejected it.
    pub ejected: bool,
    /// Share of good answers in the last interval, in percent.
    pub success_rate: Option<f64>,
    /// The same over failures to get an answer at all.
    pub local_origin_success_rate: Option<f64>,
    /// Connections open now.
    pub cx_active: u64,
    /// Connections that could not be established.
    pub cx_connect_fail: u64,
    /// Connections opened.
    pub cx_total: u64,
    /// Requests under way.
    pub rq_active: u64,
    /// Requests waiting for a connection.
    pub rq_pending_active: u64,
    /// Requests that failed.
    pub rq_error: u64,
    /// Requests that succeeded.
    pub rq_success: u64,
    /// Requests that took too long.
    pub rq_timeout: u64,
    /// Requests sent.
    pub rq_total: u64,
}

pub(super) fn answer(state: &AdminState, parameters: &Parameters) -> Reply {
    let filter = match parameters.regex("filter", "Invalid re2 regex") {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let mut clusters = state.clusters.status();
    clusters.retain(|cluster| filter.as_ref().is_none_or(|filter| filter.is_match(&cluster.name)));
    if parameters.get("format") == Some("json") {
        let statuses: Vec<_> = clusters.iter().map(json_cluster).collect();
        return Reply::json(&json!({"cluster_statuses": statuses}));
    }
    let mut out = String::new();
    for cluster in &clusters {
        // Writing to a string cannot fail.
        let _ = text_cluster(cluster, &mut out);
    }
    Reply::text(out)
}

fn text_cluster(cluster: &ClusterStatus, out: &mut String) -> std::fmt::Result {
    let name = &cluster.name;
    writeln!(out, "{name}::observability_name::{}", cluster.stat_name)?;
    for (kind, rates) in
        [("", &cluster.success_rate), ("local_origin_", &cluster.local_origin_success_rate)]
    {
        let SuccessRates { average, ejection_threshold } = rates;
        writeln!(out, "{name}::outlier::{kind}success_rate_average::{}", rate(*average))?;
        let threshold = rate(*ejection_threshold);
        writeln!(out, "{name}::outlier::{kind}success_rate_ejection_threshold::{threshold}")?;
    }
    for (priority, limits) in ["default", "high"].iter().zip(&cluster.thresholds) {
        let prefix = format!("{name}::{priority}_priority");
        writeln!(out, "{prefix}::max_connections::{}", limits.max_connections)?;
        writeln!(out, "{prefix}::max_pending_requests::{}", limits.max_pending_requests)?;
        writeln!(out, "{prefix}::max_requests::{}", limits.max_requests)?;
        writeln!(out, "{prefix}::max_retries::{}", limits.max_retries)?;
    }
    writeln!(out, "{name}::added_via_api::{}", cluster.added_via_api)?;
    for host in &cluster.hosts {
        text_host(name, host, out)?;
    }
    Ok(())
}

fn text_host(cluster: &str, host: &HostStatus, out: &mut String) -> std::fmt::Result {
    let prefix = format!("{cluster}::{}", host.address);
    let [counters, gauges] = numbers(host);
    let mut numbers: Vec<_> = counters.into_iter().chain(gauges).collect();
    numbers.sort_unstable();
    for (name, value) in numbers {
        writeln!(out, "{prefix}::{name}::{value}")?;
    }
    writeln!(out, "{prefix}::hostname::{}", host.hostname)?;
    writeln!(out, "{prefix}::health_flags::{}", health_flags(host))?;
    writeln!(out, "{prefix}::weight::{}", host.weight)?;
    writeln!(out, "{prefix}::region::{}", host.locality.region)?;
    writeln!(out, "{prefix}::zone::{}", host.locality.zone)?;
    writeln!(out, "{prefix}::sub_zone::{}", host.locality.sub_zone)?;
    writeln!(out, "{prefix}::canary::false")?;
    writeln!(out, "{prefix}::priority::{}", host.locality.priority)?;
    writeln!(out, "{prefix}::success_rate::{}", rate(host.success_rate))?;
    writeln!(out, "{prefix}::local_origin_success_rate::{}", rate(host.local_origin_success_rate))
}

/// A rate that is not known is -1.
fn rate(rate: Option<f64>) -> f64 {
    rate.unwrap_or(-1.0)
}

fn health_flags(host: &HostStatus) -> String {
    let eds = match host.health {
        HealthStatus::Healthy => "",
        HealthStatus::Unhealthy => "/failed_eds_health",
        HealthStatus::Draining => "/eds_status_draining",
        HealthStatus::Degraded => "/degraded_eds_health",
    };
    match (eds, host.ejected) {
        ("", false) => "healthy".to_owned(),
        (eds, false) => eds.to_owned(),
        (eds, true) => format!("/failed_outlier_check{eds}"),
    }
}

/// Counters and gauges of a host.
fn numbers(host: &HostStatus) -> [Vec<(&'static str, u64)>; 2] {
    let counters = vec![
        ("cx_connect_fail", host.cx_connect_fail),
        ("cx_total", host.cx_total),
        ("rq_error", host.rq_error),
        ("rq_success", host.rq_success),
        ("rq_timeout", host.rq_timeout),
        ("rq_total", host.rq_total),
    ];
    let gauges = vec![
        ("cx_active", host.cx_active),
        ("rq_active", host.rq_active),
        ("rq_pending_active", host.rq_pending_active),
    ];
    [counters, gauges]
}

fn json_cluster(cluster: &ClusterStatus) -> Value {
    let thresholds = [None, Some("HIGH")].into_iter().zip(&cluster.thresholds);
    let thresholds = thresholds.map(|(priority, limits)| {
        without_defaults(json!({
            "priority": priority,
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_requests,
            "max_retries": limits.max_retries,
        }))
    });
    let percent = |rate: Option<f64>| rate.map(|value| json!({"value": value}));
    let (all, local) = (&cluster.success_rate, &cluster.local_origin_success_rate);
    without_defaults(json!({
        "name": &*cluster.name,
        "added_via_api": cluster.added_via_api,
        "success_rate_ejection_threshold": percent(all.ejection_threshold),
        "host_statuses": cluster.hosts.iter().map(json_host).collect::<Vec<_>>(),
        "local_origin_success_rate_ejection_threshold": percent(local.ejection_threshold),
        "circuit_breakers": {"thresholds": thresholds.collect::<Vec<_>>()},
        "observability_name": &*cluster.stat_name,
    }))
}

fn json_host(host: &HostStatus) -> Value {
    let [counters, gauges] = numbers(host);
    let stat = |kind: Option<&str>, name: &str, value: u64| {
        let value = (value > 0).then(|| value.to_string());
        without_defaults(json!({"type": kind, "name": name, "value": value}))
    };
    let counters = counters.into_iter().map(|(name, value)| stat(None, name, value));
    let gauges = gauges.into_iter().map(|(name, value)| stat(Some("GAUGE"), name, value));
    let percent = |rate: Option<f64>| rate.map(|value| json!({"value": value}));
    let health = match host.health {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Degraded => "DEGRADED",
    };
    let Locality { region, zone, sub_zone, priority } = &host.locality;
    without_defaults(json!({
        "address": socket_address(host.address),
        "stats": counters.chain(gauges).collect::<Vec<_>>(),
        "health_status": without_defaults(json!({
            "failed_outlier_check": host.ejected,
            "eds_health_status": health,
        })),
        "success_rate": percent(host.success_rate),
        "weight": host.weight,
        "hostname": &*host.hostname,
        "priority": priority,
        "local_origin_success_rate": percent(host.local_origin_success_rate),
        "locality": without_defaults(json!({"region": region, "zone": zone, "sub_zone": sub_zone})),
    }))
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
