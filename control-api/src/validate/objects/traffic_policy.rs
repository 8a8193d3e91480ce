//! Traffic policies of a `DestinationRule`: pools, load balancing, outliers, TLS.

use std::collections::BTreeSet;

use super::check::Check;
use crate::model::istio::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, ConsistentHash, LoadBalancerSettings,
    LocalityLoadBalancerSetting, OutlierDetection, TlsMode, TrafficPolicy,
};

pub(super) fn check(path: &str, policy: Option<&TrafficPolicy>, check: &mut Check<'_>) {
    let Some(policy) = policy else { return };
    if *policy == TrafficPolicy::default() {
        check.error(path, "traffic policy must have at least one field");
    }
    load_balancer(path, policy.load_balancer.as_ref(), policy.outlier_detection.as_ref(), check);
    connection_pool(&format!("{path}.connectionPool"), policy.connection_pool.as_ref(), check);
    outlier_detection(path, policy.outlier_detection.as_ref(), check);
    tls(&format!("{path}.tls"), policy.tls.as_ref(), check);
    let mut ports = BTreeSet::new();
    for (at, policy) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{at}]");
        match &policy.port {
            None => {
                check.error(&format!("{path}.port"), "Required value");
            }
            Some(port) => {
                check.port(&format!("{path}.port.number"), port.number);
                if !ports.insert(port.number) {
                    check.error(
                        &format!("{path}.port"),
                        format!("Duplicate value: {}", port.number),
                    );
                }
            }
        }
        let outlier = policy.outlier_detection.as_ref();
        load_balancer(&path, policy.load_balancer.as_ref(), outlier, check);
        connection_pool(&format!("{path}.connectionPool"), policy.connection_pool.as_ref(), check);
        outlier_detection(&path, outlier, check);
        tls(&format!("{path}.tls"), policy.tls.as_ref(), check);
    }
    if let Some(tunnel) = &policy.tunnel {
        let path = format!("{path}.tunnel");
        check.required(&format!("{path}.targetHost"), &tunnel.target_host);
        check.port(&format!("{path}.targetPort"), tunnel.target_port);
        if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
            let value = format!("{:?}", tunnel.protocol);
            check.error(
                &format!("{path}.protocol"),
                format!("Unsupported value: {value}: supported values: \"CONNECT\", \"POST\""),
            );
        }
        if policy.proxy_protocol.is_some() {
            check.error(&path, "tunnel and proxyProtocol must not be set together");
        }
    }
    if let Some(percent) = policy.retry_budget.as_ref().and_then(|budget| budget.percent) {
        check.percent(&format!("{path}.retryBudget.percent"), percent);
    }
}

fn load_balancer(
    path: &str,
    settings: Option<&LoadBalancerSettings>,
    outlier: Option<&OutlierDetection>,
    check: &mut Check<'_>,
) {
    let path = format!("{path}.loadBalancer");
    let Some(settings) = settings else { return };
    if settings.simple.is_some() && settings.consistent_hash.is_some() {
        check.error(&path, "only one of simple and consistentHash can be set");
    }
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(&format!("{path}.consistentHash"), hash, check);
    }
    if let Some(locality) = &settings.locality_lb_setting {
        if settings.zone_aware_lb_setting.is_some() {
            check.error(&path, "only one of localityLbSetting and zoneAwareLbSetting can be set");
        }
        locality_setting(&format!("{path}.localityLbSetting"), locality, check);
        if outlier.is_none() && locality.distribute.is_empty() {
            let reason = "failover needs outlierDetection to see that a locality has failed";
            let finding = check.warn(&format!("{path}.localityLbSetting"), reason);
            finding.fix("set outlierDetection beside loadBalancer");
        }
    }
    if let Some(warmup) = &settings.warmup {
        let path = format!("{path}.warmup");
        if warmup.duration.is_none() {
            check.error(&format!("{path}.duration"), "Required value");
        }
        if let Some(percent) = warmup.minimum_percent {
            check.percent(&format!("{path}.minimumPercent"), percent);
        }
        if let Some(aggression) = warmup.aggression
            && aggression < 1.0
        {
            let field = format!("{path}.aggression");
            let reason = format!("{field} in body should be greater than or equal to 1");
            check.invalid(&field, aggression, reason);
        }
    }
}

fn consistent_hash(path: &str, hash: &ConsistentHash, check: &mut Check<'_>) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|given| **given).count() != 1 {
        let names = "httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName";
        check.error(path, format!("exactly one of {names} must be set"));
    }
    if let Some(cookie) = &hash.http_cookie {
        check.required(&format!("{path}.httpCookie.name"), &cookie.name);
        let names = cookie.attributes.iter().map(|attribute| attribute.name.as_str());
        check.unique(&format!("{path}.httpCookie.attributes"), "name", names);
    }
    if hash.minimum_ring_size != 0 {
        let field = format!("{path}.minimumRingSize");
        check.warn(&field, "deprecated").fix("use ringHash.minimumRingSize");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        check.error(path, "only one of ringHash and maglev can be set");
    }
    if let Some(maglev) = &hash.maglev
        && !(maglev.table_size < 5_000_011 && is_prime(maglev.table_size))
    {
        let reason = "must be a prime number less than 5000011";
        check.invalid(&format!("{path}.maglev.tableSize"), maglev.table_size, reason);
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|it| it * it <= number).all(|it| !number.is_multiple_of(it))
}

fn locality_setting(path: &str, setting: &LocalityLoadBalancerSetting, check: &mut Check<'_>) {
    let ways = [
        !setting.distribute.is_empty(),
        !setting.failover.is_empty() || !setting.failover_priority.is_empty(),
    ];
    if ways == [true, true] {
        check.error(path, "can not simultaneously specify 'distribute' and 'failover'");
    }
    for (at, distribute) in setting.distribute.iter().enumerate() {
        let path = format!("{path}.distribute[{at}]");
        check.required(&format!("{path}.from"), &distribute.from);
        let total: u64 = distribute.to.values().copied().map(u64::from).sum();
        if total != 100 {
            check.invalid(&format!("{path}.to"), total, "total locality weight must be 100");
        }
    }
    for (at, failover) in setting.failover.iter().enumerate() {
        if failover.from == failover.to {
            let path = format!("{path}.failover[{at}]");
            check.error(&path, "locality lb failover settings must specify different regions");
        }
    }
}

fn connection_pool(path: &str, pool: Option<&ConnectionPoolSettings>, check: &mut Check<'_>) {
    let Some(pool) = pool else { return };
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(path, "connection pool must have at least one field");
    }
    if let Some(tcp) = &pool.tcp {
        check.not_negative(&format!("{path}.tcp.maxConnections"), tcp.max_connections.into());
    }
    let Some(http) = &pool.http else { return };
    let numbers = [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ];
    for (field, number) in numbers {
        check.not_negative(&format!("{path}.http.{field}"), number.into());
    }
    if let Some(keepalive) = &http.http2_keep_alive {
        for (field, value) in [("interval", keepalive.interval), ("timeout", keepalive.timeout)] {
            if value.is_none() {
                check.error(&format!("{path}.http.http2KeepAlive.{field}"), "Required value");
            }
        }
    }
}

fn outlier_detection(path: &str, outlier: Option<&OutlierDetection>, check: &mut Check<'_>) {
    let path = format!("{path}.outlierDetection");
    let Some(outlier) = outlier else { return };
    check.percent(&format!("{path}.maxEjectionPercent"), outlier.max_ejection_percent.into());
    check.percent(&format!("{path}.minHealthPercent"), outlier.min_health_percent.into());
    if outlier.consecutive_errors != 0 {
        let finding = check.warn(&format!("{path}.consecutiveErrors"), "deprecated");
        finding.fix("use consecutive5xxErrors or consecutiveGatewayErrors");
    }
    let local = outlier.consecutive_local_origin_failures.is_some_and(|number| number > 0);
    if local && !outlier.split_external_local_origin_errors {
        let field = format!("{path}.consecutiveLocalOriginFailures");
        let reason = "has no effect unless splitExternalLocalOriginErrors is true";
        check.error(&field, reason).fix("set splitExternalLocalOriginErrors: true");
    }
}

fn tls(path: &str, tls: Option<&ClientTlsSettings>, check: &mut Check<'_>) {
    let Some(tls) = tls else { return };
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    if tls.insecure_skip_verify == Some(true)
        && !(tls.ca_certificates.is_empty() && tls.subject_alt_names.is_empty())
    {
        let field = format!("{path}.insecureSkipVerify");
        let reason =
            "cannot be set beside caCertificates or subjectAltNames, which it would ignore";
        check.error(&field, reason);
    }
    if tls.mode == TlsMode::Mutual && tls.credential_name.is_empty() {
        for (field, value) in files.iter().take(2) {
            check.required(&format!("{path}.{field}"), value);
        }
    }
    let given = files.iter().filter(|(_, value)| !value.is_empty());
    for (field, _) in given {
        if matches!(tls.mode, TlsMode::Mutual | TlsMode::Simple) && !tls.credential_name.is_empty()
        {
            check.error(&format!("{path}.{field}"), "cannot be set beside credentialName");
        }
        if matches!(tls.mode, TlsMode::Disable | TlsMode::IstioMutual) {
            let reason = format!("must not be set with mode {:?}", tls.mode);
            check.error(&format!("{path}.{field}"), reason);
        }
    }
}
