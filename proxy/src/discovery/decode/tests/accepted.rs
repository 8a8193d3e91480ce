//! Two whole bootstraps, a sidecar's and an edge proxy's: what they mean here, and that Envoy takes them too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use certs::authority::{Authority, Request};
use xds::envoy::config::bootstrap::v3::Bootstrap as Proto;

use super::super::bootstrap;
use super::decode;
use crate::config::access_log::{JsonFormat, LogFilter, LogFormat, LogSink, Logger};
use crate::config::address::Address;
use crate::config::bootstrap::Bootstrap;
use crate::config::cluster::{Discovery, LbPolicy, LeastRequest, UpstreamProtocol};
use crate::config::dns::DnsFamily;
use crate::config::endpoint::HealthStatus;
use crate::config::header::AppendAction;
use crate::config::http::{
    EscapedSlashes, ForwardClientCert, HttpConnectionManager, RouteSource, StripPort, Underscores,
};
use crate::config::listener::{Listener, ListenerFilterKind, SourceType, TrafficDirection};
use crate::config::route::{
    Action, ClusterSpecifier, HostRewrite, PathMatch, PathRewrite, Priority, RequireTls, Route,
    SchemeRedirect,
};
use crate::config::tls::{SecretName, TlsVersion, ValidationSource};

const SIDECAR: &str = include_str!("sidecar.yaml");
const EDGE: &str = include_str!("edge.yaml");

fn read(yaml: &str) -> Bootstrap {
    decode::<Proto, _>(yaml, bootstrap).unwrap_or_else(|errors| panic!("{}", errors.join("\n")))
}

fn manager(listener: &Listener, chain: usize) -> &HttpConnectionManager {
    listener.filter_chains[chain].http().expect("a connection manager")
}

fn routes(manager: &HttpConnectionManager) -> &[std::sync::Arc<Route>] {
    let RouteSource::Inline(table) = &manager.routes else { panic!("no inline table") };
    &table.virtual_hosts[0].routes
}

#[test]
fn a_sidecars_node_and_inbound_listener() {
    let config = read(SIDECAR);
    assert_eq!(config.node.locality, ("eu".into(), "eu-1".into(), "a".into()));
    assert_eq!(config.node.metadata["labels"]["app"], "reviews");
    assert_eq!(config.admin.unwrap().address.to_string(), "127.0.0.1:23210");
    assert_eq!(&*config.secrets[0].name, "root");

    let inbound = &config.listeners[0];
    assert_eq!(&*inbound.stat_prefix, "127.0.0.1_23211");
    assert_eq!(inbound.direction, TrafficDirection::Inbound);
    assert!(inbound.continue_on_timeout);
    assert_eq!(inbound.listener_filters, [ListenerFilterKind::TlsInspector.into()]);
    assert_eq!((inbound.listener_filters_timeout, inbound.buffer_limit), (None, 32_768));

    let mtls = &inbound.filter_chains[0];
    assert_eq!(mtls.matcher.destination_port, Some(23_211));
    assert_eq!(mtls.handshake_timeout, Some(Duration::from_secs(10)));
    let tls = mtls.tls.as_ref().unwrap();
    assert!(tls.require_client_certificate);
    assert_eq!(
        (tls.common.min_version, tls.common.max_version),
        (TlsVersion::V1_2, TlsVersion::V1_3)
    );
    let Some(ValidationSource::Combined { default, sds }) = &tls.common.validation else {
        panic!("not combined")
    };
    assert!(default.san[0].matcher.matches(b"spiffe://cluster.local/ns/a"));
    assert_eq!(*sds, SecretName::Static("root".into()));
    assert!(inbound.filter_chains[1].tls.is_none());

    let http = manager(inbound, 0);
    assert_eq!(http.forward_client_cert, ForwardClientCert::AppendForward);
    assert!(http.client_cert_details.uri && !http.client_cert_details.cert);
    assert!(http.suppress_envoy_headers && http.path.normalize && http.request_id.generate);
    assert_eq!(http.limits.stream_idle_timeout, None);
    assert_eq!(http.limits.request_headers_timeout, Some(Duration::from_secs(10)));
    let Action::Forward(forward) = &routes(http)[0].action else { panic!("no route") };
    assert_eq!(
        (forward.timeout, forward.stream_duration.and_then(|it| it.limit)),
        (None, Some(None))
    );
}

#[test]
fn a_sidecars_access_logs() {
    let config = read(SIDECAR);
    let log = &manager(&config.listeners[0], 0).access_logs[0];
    assert_eq!(log.sink(), Some(&LogSink::File("/dev/null".into())));
    assert!(matches!(&log.filter, Some(LogFilter::And(both)) if both.len() == 2));
    let Logger::Lines { format: LogFormat::Json { object, .. }, .. } = &log.logger else {
        panic!("its lines are JSON");
    };
    let JsonFormat::Object(members) = object else { panic!("no JSON") };
    let names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["fixed", "nested", "status"]);
    assert_eq!(members[0].1, JsonFormat::Constant(7.into()));

    let log = &manager(&config.listeners[1], 0).access_logs[0];
    assert_eq!(log.sink(), Some(&LogSink::Stdout));
    let Logger::Lines { format, .. } = &log.logger else { panic!("it writes lines") };
    assert!(matches!(format, LogFormat::Text { line, .. } if line.pieces.len() > 20));
}

#[test]
fn a_sidecars_outbound_routes() {
    let config = read(SIDECAR);
    let RouteSource::Inline(table) = &manager(&config.listeners[1], 0).routes else {
        panic!("no inline table")
    };
    assert_eq!(table.request_headers.add[0].action, AppendAction::OverwriteIfExistsOrAdd);
    let host = &table.virtual_hosts[0];
    assert_eq!(host.retry_policy.as_ref().unwrap().num_retries, 3);
    assert!(host.include_request_attempt_count);
    assert_eq!(&*host.virtual_clusters[0].name, "posts");
    let [regex, canary, redirect, direct] = host.routes.as_slice() else { panic!("four routes") };

    assert!(matches!(&regex.matcher.path, PathMatch::Regex(it) if it.is_match(b"/v12/x")));
    assert_eq!((regex.matcher.headers.len(), regex.matcher.query_parameters.len()), (2, 1));
    assert_eq!(regex.matcher.runtime_fraction.unwrap().denominator, 10_000);
    let Action::Forward(forward) = &regex.action else { panic!("no route") };
    assert!(matches!(forward.cluster, ClusterSpecifier::Header(_)));
    assert_eq!(forward.cluster_not_found_status, 404);
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    let PathRewrite::Regex(rewrite) = &forward.path_rewrite else { panic!("no rewrite") };
    assert_eq!(rewrite.apply("/v7/ratings"), "/api/7/ratings");

    let Action::Forward(forward) = &canary.action else { panic!("no route") };
    assert_eq!((forward.priority, forward.idle_timeout), (Priority::High, Some(None)));
    assert_eq!(forward.host_rewrite, HostRewrite::Literal("ratings.internal".into()));
    let ClusterSpecifier::Weighted(weighted) = &forward.cluster else { panic!("no weights") };
    assert_eq!((weighted.total, weighted.clusters[1].weight), (100, 10));
    let added = &weighted.clusters[1].response_headers.add[0];
    assert_eq!(added.action, AppendAction::OverwriteIfExistsOrAdd);
    let retry = forward.retry_policy.as_ref().unwrap();
    assert!(retry.avoid_previous_hosts);
    assert_eq!((retry.num_retries, retry.host_selection_attempts), (2, 5));
    assert_eq!(retry.backoff_max, Duration::from_secs(1));

    let Action::Redirect(redirect) = &redirect.action else { panic!("no redirect") };
    assert_eq!((redirect.status.as_u16(), redirect.port), (308, Some(8443)));
    assert!(redirect.scheme == SchemeRedirect::Https && redirect.strip_query);
    assert!(direct.matcher.grpc && direct.matcher.tls.unwrap().presented == Some(true));
    let Action::DirectResponse(direct) = &direct.action else { panic!("no response") };
    assert_eq!((direct.status.as_u16(), &direct.body[..]), (418, &b"short"[..]));
}

#[test]
fn a_sidecars_clusters() {
    let config = read(SIDECAR);
    let [inbound, dns, eds] = config.clusters.as_slice() else { panic!("three clusters") };
    assert_eq!(inbound.lb_policy, LbPolicy::Random);
    let [default, high] = &*inbound.circuit_breakers;
    assert_eq!((default.max_connections, default.max_requests), (u32::MAX, 7));
    assert_eq!((default.max_pending_requests, default.track_remaining), (1024, true));
    assert_eq!((high.max_retries, high.retry_budget.unwrap().min_concurrency), (9, 3));

    assert_eq!(&*dns.stat_name, "ratings");
    assert_eq!(
        dns.lb_policy,
        LbPolicy::LeastRequest(LeastRequest { choices: 3, ..Default::default() })
    );
    assert_eq!(dns.panic_threshold, 0);
    let Discovery::Dns(names) = &dns.discovery else { panic!("no DNS") };
    assert_eq!((names.family, names.refresh.respect_ttl), (DnsFamily::V4Only, true));
    let endpoint = &names.assignment.endpoints[0];
    assert_eq!(endpoint.address, Address::Dns { host: "localhost".into(), port: 9080 });
    assert_eq!((endpoint.weight, endpoint.health), (2, HealthStatus::Draining));
    assert_eq!(endpoint.transport_socket_match["tlsMode"], "istio");
    let outlier = dns.outlier_detection.as_ref().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_failure), (3, 5));
    assert_eq!(outlier.max_ejection_time, Duration::from_secs(400));
    assert_eq!((dns.http.protocol, dns.http.idle_timeout), (UpstreamProtocol::Http2, None));
    assert_eq!((dns.http.max_requests_per_connection, dns.http.auto_sni), (100, true));
    assert_eq!(dns.http.http2.max_concurrent_streams, 50);
    let [istio, disabled] = dns.transport_socket_matches.as_slice() else { panic!("two matches") };
    assert!(istio.tls.is_some() && istio.criteria["tlsMode"] == "istio");
    assert!(disabled.tls.is_none() && disabled.criteria.is_empty());

    let Discovery::Eds(source) = &eds.discovery else { panic!("no EDS") };
    assert_eq!(&*source.name, "outbound|9080||ratings");
    assert_eq!(source.source.file().unwrap().path, Path::new("@CERTS@/eds.yaml"));
}

#[test]
fn an_edge_proxys_listener() {
    let config = read(EDGE);
    let listener = &config.listeners[0];
    assert_eq!(&*listener.name, "[::]:23221");
    assert!(listener.addresses[0].options.ipv4_compat);
    let inspector = ListenerFilterKind::TlsInspector.into();
    assert_eq!(listener.listener_filters, [inspector], "chains that depend on the name need it");
    let chain = &listener.filter_chains[0];
    assert_eq!(*chain.matcher.server_names, ["shop.example".into(), "*.shop.example".into()]);
    assert_eq!(chain.matcher.source_type, SourceType::External);
    assert_eq!(chain.handshake_timeout, Some(Duration::from_secs(3)));
    assert!(chain.tls.as_ref().unwrap().disable_tickets);
    assert_eq!(&*listener.default_filter_chain.as_ref().unwrap().name, "default");

    let http = manager(listener, 0);
    assert!(http.use_remote_address && http.append_x_forwarded_port && http.path.merge_slashes);
    assert_eq!((http.xff_num_trusted_hops, &*http.server_name), (1, "envoy"));
    assert_eq!(http.internal_addresses.ranges[0].to_string(), "10.0.0.0/8");
    assert_eq!(http.via.as_deref(), Some("edge"));
    assert_eq!(http.path.escaped_slashes, EscapedSlashes::UnescapeAndRedirect);
    assert_eq!((http.strip_port, http.strip_trailing_host_dot), (StripPort::Any, true));
    assert_eq!(http.scheme_overwrite.as_deref(), Some("https"));
    assert!(http.http1.accept_http_10 && http.http1.proper_case);
    assert_eq!(http.http2.initial_stream_window, 65_536);
    assert_eq!((http.limits.max_request_headers, http.limits.max_headers_count), (16_384, 50));
    assert_eq!(http.limits.underscores, Underscores::RejectRequest);
    assert_eq!(http.limits.request_headers_timeout, None);
    assert_eq!(http.limits.idle_timeout, Some(Duration::from_secs(900)));
}

#[test]
fn an_edge_proxys_routes_and_cluster() {
    let config = read(EDGE);
    let RouteSource::Inline(table) = &manager(&config.listeners[0], 0).routes else {
        panic!("no inline table")
    };
    assert!(table.ignore_port_in_host_matching && table.most_specific_header_mutations_wins);
    assert_eq!(table.internal_only_headers, ["x-debug"]);
    assert_eq!(table.response_headers.remove, ["x-powered-by"]);
    let host = &table.virtual_hosts[0];
    assert_eq!(host.require_tls, RequireTls::ExternalOnly);
    assert_eq!(host.request_body_buffer_limit, Some(4096));
    assert_eq!(host.routes[0].matcher.path, PathMatch::Connect);
    let Action::Forward(connect) = &host.routes[0].action else { panic!("no route") };
    assert_eq!(
        (&*connect.upgrades[0].upgrade_type, connect.upgrades[0].enabled),
        ("connect", false)
    );
    assert!(host.routes[1].matcher.headers[0].missing_as_empty);

    let shop = &config.clusters[0];
    assert_eq!(shop.http.protocol, UpstreamProtocol::Http2);
    assert_eq!(shop.tls.as_ref().unwrap().sni.as_deref(), Some("shop.example"));
}

#[test]
fn envoy_takes_them_too() {
    if Command::new("envoy").arg("--version").output().is_err() {
        eprintln!("skipped: there is no program envoy to compare with");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    let authority = Authority::self_signed("test").unwrap();
    let leaf = authority.issue(&Request::default().dns("shop.example")).unwrap();
    std::fs::write(certs.join("ca.pem"), authority.root_pem()).unwrap();
    std::fs::write(certs.join("leaf.pem"), leaf.chain_pem).unwrap();
    std::fs::write(certs.join("leaf.key"), leaf.key_pem).unwrap();
    let endpoints = "version_info: '1'\nresources: []\n";
    std::fs::write(certs.join("eds.yaml"), endpoints).unwrap();
    for (name, text) in [("sidecar", SIDECAR), ("edge", EDGE)] {
        let path = certs.join(format!("{name}.yaml"));
        std::fs::write(&path, text.replace("@CERTS@", &certs.display().to_string())).unwrap();
        let flags = ["--mode", "validate", "-l", "error", "-c"];
        let output = Command::new("envoy").args(flags).arg(&path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
