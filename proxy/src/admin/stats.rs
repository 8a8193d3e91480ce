//! `/stats` and `/stats/prometheus`: statistics, filtered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use regex::Regex;

use super::parameters::Parameters;
use super::reply::Reply;
use super::{AdminState, certs};
use crate::config::ext_authz::AuthzScope;
use crate::config::http_filter::{FilterKind, HttpFilter};
use crate::config::listener::{ListenerFilter, ListenerFilterKind, NetworkFilter};
use crate::config::rbac::RbacFilter;
use crate::config::route::{OTHER_REQUESTS, RouteConfig};
use crate::config::statistics::ShownStats;
use crate::snapshot::{ConnectionLimiter, FilterChain, Snapshot, Terminal};
use crate::telemetry::metrics::{
    self, Buckets, FilterScope, Sample, Scope, Value, compressor_scopes, decompressor_scopes,
};

pub(super) const PARAMETERS: &[(&str, &str)] = &[
    USED_ONLY,
    FILTER,
    INVERT,
    ("format", "Format to use; One of (text, json, prometheus)"),
    ("type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"),
    ("histogram_buckets", "Histogram bucket display mode; One of (cumulative, disjoint, summary)"),
];

pub(super) const PROMETHEUS_PARAMETERS: &[(&str, &str)] = &[USED_ONLY, FILTER, INVERT];

const USED_ONLY: (&str, &str) =
    ("usedonly", "Only include stats that have been written by system since restart");
const FILTER: (&str, &str) = ("filter", "Regular expression (Google re2) for filtering stats");
const INVERT: (&str, &str) = ("invert_filter", "Invert the filter regex");

pub(super) fn answer(state: &AdminState, parameters: &Parameters) -> Reply {
    match parameters.get("format") {
        None | Some("" | "text") => printed(state, parameters, metrics::text, Reply::text),
        Some("json") => printed(state, parameters, metrics::json, Reply::raw_json),
        Some("prometheus") => prometheus(state, parameters),
        Some(_) => Reply::bad_request("usage: /stats?format=(json|prometheus|text)\n"),
    }
}

pub(super) fn prometheus(state: &AdminState, parameters: &Parameters) -> Reply {
    match Selection::parse(parameters) {
        Ok(selection) => Reply::text(metrics::prometheus(selection.collect(state)))
            .with_content_type(metrics::PROMETHEUS_CONTENT_TYPE),
        Err(reply) => reply,
    }
}

fn printed(
    state: &AdminState,
    parameters: &Parameters,
    print: fn(&[Sample], Buckets) -> String,
    reply: fn(String) -> Reply,
) -> Reply {
    let buckets = match parameters.get("histogram_buckets") {
        None | Some("" | "summary") => Buckets::Summary,
        Some("cumulative") => Buckets::Cumulative,
        Some("disjoint") => Buckets::Disjoint,
        Some(_) => {
            return Reply::bad_request(
                "usage: /stats?histogram_buckets=(cumulative|disjoint|summary)\n",
            );
        }
    };
    match Selection::parse(parameters) {
        Ok(selection) => reply(print(&selection.collect(state), buckets)),
        Err(reply) => reply,
    }
}

/// Which statistics are wanted.
struct Selection {
    used_only: bool,
    filter: Option<Regex>,
    invert: bool,
    kind: fn(&Value) -> bool,
}

impl Selection {
    fn parse(parameters: &Parameters) -> Result<Self, Reply> {
        Ok(Self {
            used_only: parameters.has("usedonly"),
            filter: parameters.regex("filter", "Invalid re2 regex")?,
            invert: parameters.has("invert_filter"),
            kind: match parameters.get("type") {
                None | Some("" | "All") => |_| true,
                Some("Counters") => |value| matches!(value, Value::Counter(_)),
                Some("Gauges") => |value| matches!(value, Value::Gauge(_)),
                Some("Histograms") => |value| matches!(value, Value::Histogram(_)),
                // There are none.
                Some("TextReadouts") => |_| false,
                Some(_) => return Err(Reply::bad_request("invalid &type= param")),
            },
        })
    }

    fn collect(&self, state: &AdminState) -> Vec<Sample> {
        refresh(state);
        let mut samples = state
            .metrics
            .collect(&configured(&state.snapshots.load(), state.info.options.concurrency));
        samples.retain(|sample| self.wants(sample) && shows(state, sample));
        samples
    }

    fn wants(&self, sample: &Sample) -> bool {
        let matches = |filter: &Regex| filter.is_match(&sample.to_string()) != self.invert;
        (sample.used || !self.used_only)
            && (self.kind)(&sample.value)
            && self.filter.as_ref().is_none_or(matches)
    }
}

/// Whether the bootstrap lets it be shown.
fn shows(state: &AdminState, sample: &Sample) -> bool {
    match &*state.shown_stats {
        ShownStats::All => true,
        chosen => chosen.has(&sample.to_string()),
    }
}

/// The listeners, connection managers and clusters there are, whether or not traffic has met them.
fn configured(snapshot: &Snapshot, workers: usize) -> BTreeSet<Scope> {
    let clusters = snapshot.clusters.values().map(|spec| Scope::cluster(&spec.config.stat_name));
    let listeners = snapshot.listeners.values().flat_map(|listener| {
        let chains = listener.chains.iter().chain(&listener.default_chain);
        let chains = chains.flat_map(|chain| chain_scopes(chain));
        let filters = listener.config.listener_filters.iter().flat_map(filter_scopes);
        let prefix = &listener.config.stat_prefix;
        let workers = (0..workers).map(|id| Scope::listener_worker(prefix, id));
        chains.chain(filters).chain([Scope::listener(prefix)]).chain(workers)
    });
    clusters.chain(listeners).collect()
}

/// What the filters of a chain count under.
fn chain_scopes(chain: &FilterChain) -> Vec<Scope> {
    let limit = |it: &Arc<ConnectionLimiter>| Scope::connection_limit(&it.config().stat_prefix);
    let mut scopes: Vec<_> = chain.limiters.iter().map(limit).collect();
    for filter in &chain.config.filters {
        match filter {
            NetworkFilter::Rbac(rbac) => scopes.extend(rbac_scopes(&rbac.filter)),
            NetworkFilter::ExtAuthz(authz) => {
                scopes.push(Scope::Filter(FilterScope::network_authz(&authz.stat_prefix)));
            }
            _ => {}
        }
    }
    let rates = chain.rates.iter().map(|(rate, _)| FilterScope::connection_rate(&rate.stat_prefix));
    scopes.extend(rates.map(Scope::Filter));
    match &chain.terminal {
        Terminal::Http(http) => {
            scopes.push(Scope::http(&http.config.stat_prefix));
            let own = |filter| http_filter_scopes(filter, &http.config.stat_prefix);
            scopes.extend(http.config.filters.iter().flat_map(own));
            scopes.extend(http.routes.iter().flat_map(|table| host_scopes(table.config())));
        }
        Terminal::Tcp(tcp) => scopes.push(Scope::tcp(&tcp.stat_prefix)),
    }
    scopes
}

/// What the routes and virtual clusters of a table count under.
fn host_scopes(table: &RouteConfig) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for host in &table.virtual_hosts {
        let prefixes = host.routes.iter().filter_map(|route| route.stat_prefix.as_ref());
        scopes.extend(prefixes.map(|prefix| FilterScope::route(&host.name, prefix)));
        if !host.virtual_clusters.is_empty() {
            let names = host.virtual_clusters.iter().map(|cluster| &cluster.name);
            let names = names.chain([&*OTHER_REQUESTS]);
            scopes.extend(names.map(|name| FilterScope::virtual_cluster(&host.name, name)));
        }
    }
    scopes.into_iter().map(Scope::Filter).collect()
}

/// What an HTTP filter of a connection manager with this `stat_prefix` counts under.
fn http_filter_scopes(filter: &HttpFilter, stat_prefix: &str) -> Vec<Scope> {
    match &filter.kind {
        FilterKind::JwtAuthn(config) => {
            let scope = FilterScope::jwt_authn(&config.stats.manager, &config.stats.prefix);
            vec![Scope::Filter(scope)]
        }
        FilterKind::Cors => vec![Scope::cors(stat_prefix)],
        FilterKind::Fault(_) => vec![Scope::Filter(FilterScope::fault(stat_prefix))],
        FilterKind::ForwardProxy(_) | FilterKind::HeaderMutation(_) | FilterKind::RateLimit(_) => {
            Vec::new()
        }
        FilterKind::ExtAuthz(config) => {
            let AuthzScope { manager, prefix } = &config.scope;
            vec![Scope::Filter(FilterScope::ext_authz(manager, prefix))]
        }
        FilterKind::Csrf(_) => vec![Scope::Filter(FilterScope::csrf(stat_prefix))],
        FilterKind::Compressor(config) => compressor_scopes(&config.scope).into(),
        FilterKind::Decompressor(config) => decompressor_scopes(&config.scope).into(),
        FilterKind::Buffer(_)
        | FilterKind::GrpcStats(_)
        | FilterKind::GrpcWeb
        | FilterKind::HealthCheck(_)
        | FilterKind::SetFilterState(_) => Vec::new(),
        FilterKind::LocalRateLimit(config) => {
            vec![Scope::Filter(FilterScope::local_rate_limit(&config.stat_prefix))]
        }
        FilterKind::StatefulSession(config) => {
            config.stats.iter().map(|it| Scope::session(&it.manager, &it.prefix)).collect()
        }
        FilterKind::Rbac(filter) => rbac_scopes(filter).into(),
        _ => Vec::new(),
    }
}

fn rbac_scopes(filter: &RbacFilter) -> [Scope; 2] {
    [&filter.rules_scope, &filter.shadow_scope].map(Scope::rbac)
}

/// What a listener filter counts under.
fn filter_scopes(filter: &ListenerFilter) -> Vec<Scope> {
    match &filter.kind {
        ListenerFilterKind::OriginalDst | ListenerFilterKind::OriginalSrc(_) => Vec::new(),
        ListenerFilterKind::TlsInspector => vec![Scope::TlsInspector],
        ListenerFilterKind::HttpInspector => vec![Scope::HttpInspector],
        ListenerFilterKind::ProxyProtocol(config) => {
            Scope::proxy_protocol(&config.stat_prefix).into()
        }
    }
}

/// Brings what is only worth knowing when asked up to date.
fn refresh(state: &AdminState) {
    /// What Envoy says when there is no certificate.
    const NEVER: i64 = u32::MAX as i64;
    let server = state.metrics.server();
    let uptime = state.info.started.elapsed().as_secs();
    server.version.set(version(env!("CARGO_PKG_VERSION")));
    server.uptime.set(i64::try_from(uptime).unwrap_or(i64::MAX));
    let days = certs::days_until_first_expires(&state.snapshots.load(), SystemTime::now());
    let days = days.and_then(|days| i64::try_from(days).ok());
    server.days_until_first_cert_expiring.set(days.unwrap_or(NEVER));
}

/// Major, minor and patch with three digits each; letters after them are left out.
fn version(text: &str) -> i64 {
    let numbers = text.split(['.', '-', '+']).take(3).map(|part| part.parse::<i64>().unwrap_or(0));
    numbers.fold(0, |so_far, number| so_far * 1000 + number)
}
