//! Tables of bad messages, each with the field it is refused for and the beginning of the reason.

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::super::{bootstrap, cluster, listener, route_config, secret};
use super::decode;

/// Checks that each text of the table is refused with exactly one error, which begins as the table says.
fn check<T: std::fmt::Debug>(
    table: &[(&str, &str)],
    decode: impl Fn(&str) -> Result<T, Vec<String>>,
) {
    for (yaml, expected) in table {
        let errors = decode(yaml).expect_err(yaml);
        assert_eq!(errors.len(), 1, "{yaml}: {errors:?}");
        assert!(
            errors[0].starts_with(expected),
            "{yaml}\n  wanted {expected}\n  got    {}",
            errors[0]
        );
    }
}

#[test]
fn routes() {
    let table = [
        ("{match: {prefix: /}}", ": required: route"),
        ("{route: {cluster: a}}", "match: required"),
        ("{match: {}, route: {cluster: a}}", "match: required: prefix"),
        (
            "{match: {path_separated_prefix: /a/}, route: {cluster: a}}",
            "match.path_separated_prefix: ",
        ),
        (
            "{match: {safe_regex: {regex: 'a)(b'}}, route: {cluster: a}}",
            "match.safe_regex.regex: unexpected )",
        ),
        (
            "{match: {safe_regex: {regex: ''}}, route: {cluster: a}}",
            "match.safe_regex.regex: must not be empty",
        ),
        (
            "{match: {prefix: /, headers: [{present_match: true}]}, route: {cluster: a}}",
            "match.headers[0].name: must not be empty",
        ),
        (
            "{match: {prefix: /, headers: [{name: a, string_match: {}}]}, route: {cluster: a}}",
            "match.headers[0].string_match: required",
        ),
        (
            "{match: {prefix: /, headers: [{name: a, string_match: {prefix: ''}}]}, route: {cluster: a}}",
            "match.headers[0].string_match.prefix: must",
        ),
        (
            "{match: {prefix: /, query_parameters: [{present_match: true}]}, route: {cluster: a}}",
            "match.query_parameters[0].name: must",
        ),
        (
            "{match: {prefix: /, runtime_fraction: {runtime_key: a}}, route: {cluster: a}}",
            "match.runtime_fraction.default_value: required",
        ),
        ("{match: {prefix: /}, route: {}}", "route: required: cluster"),
        ("{match: {prefix: /}, route: {cluster: ''}}", "route.cluster: must not be empty"),
        (
            "{match: {prefix: /}, route: {cluster: a, timeout: -1s}}",
            "route.timeout: must not be negative",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a, prefix_rewrite: /b, path_rewrite: /c}}",
            "route: only one of prefix_rewrite",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a, regex_rewrite: {pattern: {regex: a}, substitution: '\\1'}}}",
            "route.regex_rewrite.substitution: \\1 is no group",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: []}}}",
            "route.weighted_clusters.clusters: the sum",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a}]}}}",
            "route.weighted_clusters.clusters[0].weight: required",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, cluster_header: b, weight: 1}]}}}",
            "route.weighted_clusters.clusters[0]: only one of",
        ),
        (
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 4294967295}, {name: b, weight: 1}]}}}",
            "route.weighted_clusters.clusters: the sum of the weights exceeds",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_back_off: {max_interval: 1s}}}}",
            "route.retry_policy.retry_back_off.base_interval: required",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}}}",
            "route.retry_policy.retry_back_off.max_interval: must be at least",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a, hash_policy: [{terminal: true}]}}",
            "route.hash_policy: ",
        ),
        (
            "{match: {prefix: /}, redirect: {port_redirect: 70000}}",
            "redirect.port_redirect: a port is at most 65535",
        ),
        (
            "{match: {prefix: /}, direct_response: {status: 199}}",
            "direct_response.status: must be 200 to 599",
        ),
        (
            "{match: {prefix: /}, direct_response: {status: 200, body: {filename: /nowhere/at/all}}}",
            "direct_response.body.filename: cannot read",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: host, value: a}}]}",
            "request_headers_to_add[0].header.key: :-prefixed",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: a, value: '%NOPE%'}}]}",
            "request_headers_to_add[0].header.value: ",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a}, request_headers_to_add: [{header: {key: a, value: b}, append: true, append_action: ADD_IF_ABSENT}]}",
            "request_headers_to_add[0].append: ",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a}, response_headers_to_remove: [':status']}",
            "response_headers_to_remove[0]: :-prefixed",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {f: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig}}}",
            "typed_per_filter_config[\"f\"]: neither",
        ),
        (
            "{match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {f: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}",
            "typed_per_filter_config[\"f\"]: envoy.extensions.filters.http.router.v3.Router is not supported here",
        ),
    ];
    check(&table, |route| {
        let table = format!("virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]");
        let place = "virtual_hosts[0].routes[0]";
        decode::<RouteConfiguration, _>(&table, route_config).map_err(|errors| {
            errors
                .iter()
                .map(|it| it.replacen(place, "", 1).trim_start_matches('.').into())
                .collect()
        })
    });
}

#[test]
fn route_tables() {
    let big = "x".repeat(4097);
    let body = format!(
        "virtual_hosts: [{{name: a, domains: [a], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {big}}}}}}}]}}]"
    );
    let table = [
        ("virtual_hosts: [{name: a}]", "virtual_hosts[0].domains: at least one"),
        ("virtual_hosts: [{domains: [a]}]", "virtual_hosts[0].name: must not be empty"),
        (
            "{name: t, virtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: [b, '*']}]}",
            "virtual_hosts[1].domains[1]: Only a single wildcard domain is permitted in route t",
        ),
        (
            "{name: t, virtual_hosts: [{name: a, domains: [x.y, X.Y]}]}",
            "virtual_hosts[0].domains[1]: Only unique values for domains are permitted. Duplicate entry of domain X.Y in route t",
        ),
        (
            "virtual_hosts: [{name: a, domains: [a], virtual_clusters: [{name: v}]}]",
            "virtual_hosts[0].virtual_clusters[0].headers: at least one",
        ),
        ("internal_only_headers: ['a b']", "internal_only_headers[0]: \"a b\" is no header name"),
        (
            &body,
            "virtual_hosts[0].routes[0].direct_response.body: response body size is 4097 bytes; maximum is 4096",
        ),
    ];
    check(&table, |yaml| decode::<RouteConfiguration, _>(yaml, route_config));
}

const ROUTER: &str = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// A filter chain whose connection manager has these fields.
fn chain(fields: &str) -> String {
    format!(
        "{{filters: [{{name: f, typed_config: {{\
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
        {fields}}}}}]}}"
    )
}

/// A listener with one such chain.
fn with_manager(fields: &str) -> String {
    let chain = chain(fields);
    format!(
        "{{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, filter_chains: [{chain}]}}"
    )
}

#[test]
fn connection_managers() {
    let file = |typed_config: &str| {
        format!(
            "stat_prefix: s, route_config: {{}}, http_filters: [{ROUTER}], access_log: [{{typed_config: {{\
            '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, {typed_config}"
        )
    };
    let valid = |fields: &str| {
        format!("stat_prefix: s, route_config: {{}}, http_filters: [{ROUTER}], {fields}")
    };
    let table = [
        (format!("route_config: {{}}, http_filters: [{ROUTER}]"), "stat_prefix: must not be empty"),
        (format!("stat_prefix: s, http_filters: [{ROUTER}]"), ": required: route_config or rds"),
        (
            "stat_prefix: s, route_config: {}".into(),
            "http_filters: the last filter must be envoy.filters.http.router",
        ),
        (
            format!("stat_prefix: s, route_config: {{}}, http_filters: [{ROUTER}, {ROUTER}]"),
            "http_filters[0]: a terminal filter",
        ),
        (
            format!("stat_prefix: s, route_config: {{}}, http_filters: [{{name: f}}, {ROUTER}]"),
            "http_filters[0].typed_config: required",
        ),
        (
            format!(
                "stat_prefix: s, http_filters: [{ROUTER}], rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}"
            ),
            "rds.config_source.ads: management servers are not supported",
        ),
        (valid("codec_type: HTTP3"), "codec_type: HTTP3 is not supported"),
        (
            valid("strip_matching_host_port: true, strip_any_host_port: true"),
            "strip_any_host_port: only one of",
        ),
        (valid("max_request_headers_kb: 8193"), "max_request_headers_kb: must be 1 to 8192"),
        (
            valid("upgrade_configs: [{upgrade_type: a}, {upgrade_type: A}]"),
            "upgrade_configs[1].upgrade_type: multiple",
        ),
        (
            valid("scheme_header_transformation: {scheme_to_overwrite: ftp}"),
            "scheme_header_transformation.scheme_to_overwrite: must be http or https",
        ),
        (
            valid("http2_protocol_options: {initial_stream_window_size: 1}"),
            "http2_protocol_options.initial_stream_window_size: must be 65535 to",
        ),
        (
            valid("http2_protocol_options: {connection_keepalive: {interval: 1s}}"),
            "http2_protocol_options.connection_keepalive.timeout: required",
        ),
        (
            valid("common_http_protocol_options: {max_headers_count: 0}"),
            "common_http_protocol_options.max_headers_count: must be at least 1",
        ),
        (
            valid("internal_address_config: {cidr_ranges: [{address_prefix: a, prefix_len: 1}]}"),
            "internal_address_config.cidr_ranges[0].address_prefix: ",
        ),
        (valid("local_reply_config: {}"), "local_reply_config: "),
        (file("path: ''}}]"), "access_log[0].typed_config.path: must not be empty"),
        (file("path: p, log_format: {}}}]"), "access_log[0].typed_config.log_format: required"),
        (
            file("path: p, log_format: {text_format_source: {inline_string: '%NOPE%'}}}}]"),
            "access_log[0].typed_config.log_format.text_format_source: ",
        ),
        (
            file("path: p, log_format: {json_format: {a: [1, '%NOPE%']}}}}]"),
            "access_log[0].typed_config.log_format.json_format[\"a\"][1]: ",
        ),
        (
            file("path: p}, filter: {and_filter: {filters: [{traceable_filter: {}}]}}}]"),
            "access_log[0].filter.and_filter.filters: at least two",
        ),
        (file("path: p}, filter: {}}]"), "access_log[0].filter: required"),
    ];
    let place = "filter_chains[0].filters[0].typed_config";
    for (fields, expected) in table {
        check(&[(&with_manager(&fields), expected)], |yaml| {
            decode::<Listener, _>(yaml, listener).map_err(|errors| {
                errors
                    .iter()
                    .map(|it| it.replacen(place, "", 1).trim_start_matches('.').into())
                    .collect()
            })
        });
    }
}

#[test]
fn an_optional_filter_is_skipped() {
    let other =
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    let filters = |mark: &str| {
        with_manager(&format!(
            "stat_prefix: s, route_config: {{}}, http_filters: [{{name: f, {mark} typed_config: {{'@type': {other}}}}}, {ROUTER}]"
        ))
    };
    let read = |yaml: &str| decode::<Listener, _>(yaml, listener);
    assert!(read(&filters("is_optional: true,")).is_ok());
    assert!(read(&filters("disabled: true,")).is_ok());
    check(
        &[(
            &filters(""),
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector is not supported",
        )],
        read,
    );
}

#[test]
fn listeners() {
    let chain = chain(&format!("stat_prefix: s, route_config: {{}}, http_filters: [{ROUTER}]"));
    let matching =
        |matcher: &str| chain.replacen('{', &format!("{{filter_chain_match: {matcher}, "), 1);
    let address = "address: {socket_address: {address: 127.0.0.1, port_value: 1}}";
    let table = [
        (format!("{{filter_chains: [{chain}]}}"), "address: required"),
        (format!("{{{address}}}"), "filter_chains: no filter chains specified"),
        (
            format!("{{{address}, filter_chains: [{{}}]}}"),
            "filter_chains[0].filters: a chain needs",
        ),
        (
            format!("{{{address}, filter_chains: [{chain}, {chain}]}}"),
            "filter_chains[1].filter_chain_match: filter chain 'filter_chain_1' has the same matching rules defined as 'filter_chain_0'",
        ),
        (
            format!("{{{address}, filter_chains: [{}]}}", matching("{server_names: ['f*.com']}")),
            "filter_chains[0].filter_chain_match.server_names[0]: partial wildcards",
        ),
        (
            format!("{{{address}, filter_chains: [{}]}}", matching("{transport_protocol: quic}")),
            "filter_chains[0].filter_chain_match.transport_protocol: must be",
        ),
        (
            format!("{{{address}, filter_chains: [{}]}}", matching("{source_ports: [0]}")),
            "filter_chains[0].filter_chain_match.source_ports[0]: must be 1 to",
        ),
        (
            format!(
                "{{{address}, filter_chains: [{}]}}",
                matching("{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 33}]}")
            ),
            "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len: must be at most 32",
        ),
        (format!("{{{address}, filter_chains: [{chain}], bind_to_port: false}}"), "bind_to_port: "),
        (
            format!(
                "{{address: {{socket_address: {{address: localhost, port_value: 1}}}}, filter_chains: [{chain}]}}"
            ),
            "address.socket_address.address: \"localhost\" is no IP address",
        ),
        (
            format!(
                "{{address: {{socket_address: {{address: '::', protocol: UDP, port_value: 1}}}}, filter_chains: [{chain}]}}"
            ),
            "address.socket_address.protocol: UDP",
        ),
        (
            format!("{{{address}, filter_chains: [{chain}], listener_filters: [{{name: f}}]}}"),
            "listener_filters[0].typed_config: required",
        ),
    ];
    for (yaml, expected) in table {
        check(&[(&yaml, expected)], |yaml| decode::<Listener, _>(yaml, listener));
    }
}

#[test]
fn clusters() {
    let tls = |context: &str| {
        format!(
            "name: a, transport_socket: {{name: t, typed_config: {{\
            '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, {context}}}}}"
        )
    };
    let endpoint = |fields: &str| {
        format!(
            "name: a, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{{fields}}}]}}]}}"
        )
    };
    let http = |options: &str| {
        format!(
            "name: a, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\
            '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions{options}}}}}"
        )
    };
    let options = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    let san = "match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: x}}]";
    let table = [
        ("type: STATIC".into(), "name: must not be empty".into()),
        ("name: a, connect_timeout: 0s".into(), "connect_timeout: must be longer than 0s".into()),
        ("name: a, type: LOGICAL_DNS".into(), "type: LOGICAL_DNS is not supported".into()),
        ("name: a, lb_policy: RING_HASH".into(), "lb_policy: RING_HASH is not supported".into()),
        ("name: a, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 1}".into(), "least_request_lb_config.choice_count: must be at least 2".into()),
        ("name: a, type: EDS".into(), "eds_cluster_config: required".into()),
        ("name: a, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}".into(), "eds_cluster_config.eds_config.ads: management servers".into()),
        ("name: a, type: EDS, eds_cluster_config: {eds_config: {resource_api_version: V2, path: p}}".into(), "eds_cluster_config.eds_config.resource_api_version: V2".into()),
        ("name: a, type: STRICT_DNS, dns_refresh_rate: 0s".into(), "dns_refresh_rate: must be longer".into()),
        ("name: a, common_lb_config: {healthy_panic_threshold: {value: 101}}".into(), "common_lb_config.healthy_panic_threshold: must be 0 to 100".into()),
        ("name: a, outlier_detection: {max_ejection_percent: 101}".into(), "outlier_detection.max_ejection_percent: must be 0 to 100".into()),
        ("name: a, outlier_detection: {base_ejection_time: 9s, max_ejection_time: 8s}".into(), "outlier_detection.max_ejection_time: cannot be smaller".into()),
        ("name: a, health_checks: []".into(), "health_checks: ".into()),
        (endpoint("endpoint: {address: {socket_address: {address: a.b, port_value: 1}}}"), "load_assignment: \"a.b\" is no IP address".into()),
        (endpoint("endpoint: {address: {socket_address: {address: 127.0.0.1}}}"), "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: required".into()),
        (endpoint("load_balancing_weight: 0, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}"), "load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight: must be at least 1".into()),
        ("name: a, load_assignment: {cluster_name: a, endpoints: [{priority: 1}]}".into(), "load_assignment.endpoints[0].priority: priorities".into()),
        (http(""), format!("{options}: required: explicit_http_config")),
        (http(", explicit_http_config: {}"), format!("{options}.explicit_http_config: required")),
        (http(", auto_config: {}"), "transport_socket: auto_config needs".into()),
        (format!("{}, http2_protocol_options: {{}}", http(", explicit_http_config: {http_protocol_options: {}}")), "http2_protocol_options: cannot be set together".into()),
        (tls(&format!("common_tls_context: {{validation_context: {{{san}}}}}")), "transport_socket.typed_config.common_tls_context.validation_context.match_typed_subject_alt_names: SAN-based verification".into()),
        (tls("common_tls_context: {validation_context: {verify_certificate_hash: [zz]}}"), "transport_socket.typed_config.common_tls_context.validation_context.verify_certificate_hash[0]: is no SHA-256".into()),
        (tls("common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_1}}"), "transport_socket.typed_config.common_tls_context.tls_params.tls_maximum_protocol_version: TLS 1.2".into()),
        (tls("auto_sni_san_validation: true"), "transport_socket.typed_config.auto_sni_san_validation: needs".into()),
        ("name: a, transport_socket_matches: [{match: {a: b}}]".into(), "transport_socket_matches[0].name: must not be empty".into()),
        ("name: a, transport_socket_matches: [{name: m, match: {a: 1}}]".into(), "transport_socket_matches[0].match[\"a\"]: only texts".into()),
    ];
    for (yaml, expected) in table {
        let yaml: String = format!("{{{yaml}}}");
        let expected: String = expected;
        check(&[(&yaml, &expected)], |yaml| decode::<Cluster, _>(yaml, cluster));
    }
}

#[test]
fn secrets_and_bootstraps() {
    let read = |yaml: &str| decode::<Secret, _>(yaml, secret);
    check(
        &[
            ("name: s", "required: tls_certificate or validation_context"),
            (
                "{name: s, tls_certificate: {private_key: {inline_string: k}}}",
                "tls_certificate.certificate_chain: required",
            ),
            (
                "{name: s, validation_context: {trusted_ca: {}}}",
                "validation_context.trusted_ca: required: filename",
            ),
        ],
        read,
    );
    let cluster = "{name: a}";
    let duplicate = format!("static_resources: {{clusters: [{cluster}, {cluster}]}}");
    let table = [
        (duplicate.as_str(), "static_resources.clusters[1].name: duplicate name \"a\""),
        (
            "admin: {address: {socket_address: {address: localhost, port_value: 1}}}",
            "admin.address.socket_address.address: \"localhost\" is no IP",
        ),
        ("dynamic_resources: {ads_config: {}}", "dynamic_resources.ads_config: management servers"),
        (
            "dynamic_resources: {lds_config: {api_config_source: {api_type: GRPC}}}",
            "dynamic_resources.lds_config.api_config_source: management servers",
        ),
        ("dynamic_resources: {cds_config: {}}", "dynamic_resources.cds_config: required"),
        ("layered_runtime: {layers: [{name: a}]}", "layered_runtime.layers[0]: required"),
        (
            "layered_runtime: {layers: [{name: a, static_layer: {routing: {share: 5}}}]}",
            "layered_runtime.layers[0].static_layer[\"routing.share\"]: runtime values are not supported",
        ),
        ("stats_sinks: []", "stats_sinks: "),
    ];
    check(&table, |yaml| decode::<Bootstrap, _>(yaml, bootstrap));
}

#[test]
fn a_limit_of_a_listener_counts_only_if_there_is_such_a_listener() {
    let listener =
        with_manager(&format!("stat_prefix: s, route_config: {{}}, http_filters: [{ROUTER}]"))
            .replacen('{', "{name: in, ", 1);
    let limiting = |name: &str| {
        format!(
            "{{static_resources: {{listeners: [{listener}]}}, layered_runtime: {{layers: [\
            {{name: l, static_layer: {{envoy.resource_limits.listener.{name}.connection_limit: 5}}}}]}}}}"
        )
    };
    let read = |yaml: &str| decode::<Bootstrap, _>(yaml, bootstrap);
    assert!(read(&limiting("other")).is_ok());
    check(
        &[(
            &limiting("in"),
            "layered_runtime.layers[0].static_layer[\"envoy.resource_limits.listener.in.connection_limit\"]: connection limits",
        )],
        read,
    );
}

#[test]
fn all_errors_of_a_file_are_reported_together() {
    let yaml = "static_resources: {clusters: [{name: a, connect_timeout: 0s}, {name: b}, {}], listeners: [{name: l}]}";
    let errors = decode::<Bootstrap, _>(yaml, bootstrap).unwrap_err();
    assert_eq!(
        errors,
        [
            "static_resources.listeners[0].address: required",
            "static_resources.clusters[0].connect_timeout: must be longer than 0s",
            "static_resources.clusters[2].name: must not be empty",
        ]
    );
}
