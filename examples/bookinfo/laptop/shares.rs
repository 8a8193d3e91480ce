//! Which share of requests goes where, by the routes that a proxy has in force.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a route says of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    /// Percent of the requests that match.
    pub(super) percent: f64,
    /// The headers that requests must have, as in `end-user=jason`; none if all match.
    pub(super) when: Option<String>,
    /// What is done to them on purpose, as in `delay 7s`.
    pub(super) fault: Option<String>,
}

impl Share {
    /// As people read it.
    pub(super) fn words(&self) -> String {
        let mut words = format!("{} %", (self.percent * 10.0).round() / 10.0);
        if let Some(when) = &self.when {
            words += &format!(" if {when}");
        }
        if let Some(fault) = &self.fault {
            words += &format!(" ({fault})");
        }
        words
    }

    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        json!({"percent": self.percent, "when": self.when, "fault": self.fault})
    }
}

/// The shares of each cluster, by a proxy's `/config_dump?resource=dynamic_route_configs`.
pub(super) fn of(dump: &Value) -> BTreeMap<String, Vec<Share>> {
    let mut shares: BTreeMap<String, Vec<Share>> = BTreeMap::new();
    let hosts = list(&dump["configs"]).flat_map(|it| list(&it["route_config"]["virtual_hosts"]));
    for route in hosts.flat_map(|host| list(&host["routes"])) {
        let (when, fault) = (when(&route["match"]), fault(route));
        for (cluster, percent) in clusters(&route["route"]) {
            let share = Share { percent, when: when.clone(), fault: fault.clone() };
            let known = shares.entry(cluster.to_owned()).or_default();
            if !known.contains(&share) {
                known.push(share);
            }
        }
    }
    shares
}

fn clusters(action: &Value) -> Vec<(&str, f64)> {
    if let Some(cluster) = action["cluster"].as_str() {
        return vec![(cluster, 100.0)];
    }
    let weighted = || list(&action["weighted_clusters"]["clusters"]);
    let weight = |it: &Value| it["weight"].as_f64().unwrap_or_default();
    let total: f64 = weighted().map(weight).sum();
    let share = |it| if total > 0.0 { weight(it) * 100.0 / total } else { 0.0 };
    weighted().filter_map(|it| Some((it["name"].as_str()?, share(it)))).collect()
}

fn when(conditions: &Value) -> Option<String> {
    let words: Vec<_> = list(&conditions["headers"])
        .map(|header| {
            let name = header["name"].as_str().unwrap_or_default();
            match header["string_match"].as_object().and_then(|it| it.iter().next()) {
                Some((kind, value)) if kind == "exact" => {
                    format!("{name}={}", value.as_str().unwrap_or_default())
                }
                Some((kind, value)) => format!("{name} {kind} {value}"),
                None => format!("{name} is there"),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn fault(route: &Value) -> Option<String> {
    let fault = &route["typed_per_filter_config"]["envoy.filters.http.fault"];
    let delay = fault["delay"]["fixed_delay"].as_str().map(|it| format!("delay {it}"));
    let abort = fault["abort"]["http_status"].as_u64().map(|it| format!("abort {it}"));
    let words: Vec<_> = delay.into_iter().chain(abort).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
