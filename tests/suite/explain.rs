//! `outrigger explain`: the way of a request through a configuration, in words that a person can act on.

use std::process::Output;

use harness::{Program, Value};

const BOOTSTRAP: &str = r#"static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: 0.0.0.0, port_value: 8443}}
    filter_chains:
    - name: shop
      filter_chain_match: {source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
      filters:
      - name: http
        typed_config: &http
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          use_remote_address: true
          common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
          route_config:
            validate_clusters: false
            virtual_hosts:
            - name: shop
              domains: [shop.example]
              routes:
              - match: {prefix: /cart, headers: [{name: x-user-type, string_match: {exact: premium}}]}
                route: {cluster: cart-v2, prefix_rewrite: /v2}
              - match: {prefix: /cart}
                route:
                  weighted_clusters: {clusters: [{name: cart, weight: 90}, {name: cart-v2, weight: 10}]}
              - match: {path: /old}
                redirect: {path_redirect: /new}
              - match: {prefix: /gone}
                route: {cluster: gone}
              - match: {prefix: /unknown}
                route: {cluster: unknown, cluster_not_found_response_code: NOT_FOUND}
              - match: {prefix: /dropped}
                route: {cluster: dropped}
              - match: {prefix: /ill}
                route: {cluster: ill}
              - match: {prefix: /passed-on}
                route: {cluster: passed-on}
              - match: {prefix: /caller, headers: [{name: x-forwarded-for, present_match: true}, {name: x-envoy-internal, present_match: true, invert_match: true}]}
                direct_response: {status: 200}
            - name: rest
              domains: ["*.example"]
              routes: [{match: {prefix: /}, direct_response: {status: 418}}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
    - name: others
      filters: [{name: http, typed_config: *http}]
  - name: metrics
    address: {socket_address: {address: 127.0.0.1, port_value: 9090}}
    additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 9091}}}]
    filter_chains: [{filters: [{name: http, typed_config: *http}]}]
  clusters:
  - name: cart
    load_assignment:
      cluster_name: cart
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 10.1.0.1, port_value: 80}}}
        - endpoint: {address: {socket_address: {address: 10.1.0.2, port_value: 80}}}
          health_status: UNHEALTHY
  - name: cart-v2
    type: STRICT_DNS
    load_assignment:
      cluster_name: cart-v2
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: cart.test, port_value: 80}}}}]}]
  - {name: gone}
  - name: dropped
    load_assignment:
      cluster_name: dropped
      policy: {drop_overloads: [{category: all, drop_percentage: {numerator: 100}}]}
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.1.0.1, port_value: 80}}}}]}]
  - name: ill
    load_assignment:
      cluster_name: ill
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.1.0.3, port_value: 80}}}, health_status: UNHEALTHY}]
      - priority: 1
        lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.1.0.4, port_value: 80}}}, health_status: DRAINING}]
  - {name: passed-on, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED}
"#;

/// What replaces the route and the cluster `gone`, where there are subsets.
const WANTED: &str =
    r#"route: {cluster: gone, metadata_match: {filter_metadata: {envoy.lb: {v: "2"}}}}"#;
const DIVIDED: &str = r#"- name: gone
    lb_subset_config: {subset_selectors: [{keys: [v]}], fallback_policy: ANY_ENDPOINT}
    load_assignment:
      cluster_name: gone
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 10.1.0.1, port_value: 80}}}
          metadata: {filter_metadata: {envoy.lb: {v: "1"}}}
        - endpoint: {address: {socket_address: {address: 10.1.0.2, port_value: 80}}}
          metadata: {filter_metadata: {envoy.lb: {v: "2"}}}"#;

fn explain(arguments: &[&str]) -> Output {
    explain_in(BOOTSTRAP, arguments)
}

fn explain_in(bootstrap: &str, arguments: &[&str]) -> Output {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), bootstrap).unwrap();
    std::process::Command::new(Program::Outrigger.path().unwrap())
        .args(["explain", "--config"])
        .arg(file.path())
        .args(arguments)
        .output()
        .unwrap()
}

/// What is printed, with the file's name taken out.
fn text(output: &Output) -> String {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(bytes).unwrap();
    let words = text.split(' ').map(|word| match word.split_once(".yaml:") {
        Some((_, place)) => format!("@{place}"),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_choice_is_named_with_its_place_and_what_was_not_chosen() {
    let request = ["GET", "http://shop.example:8443/cart/1?a", "-H", "host: shop.example"];
    let output = explain(&[&request[..], &["-H", "x-user-type: basic"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let text = text(&output);
    for line in [
        "request       GET http://shop.example/cart/1?a from 127.0.0.1:40000",
        "listener      edge  @3:5",
        "not metrics on 127.0.0.1:9090: the request asks for port 8443",
        "filter chain  others  @",
        "not shop: source_prefix_ranges are [10.0.0.0/8], without 127.0.0.1  @6:7",
        "virtual host  shop  @",
        "not rest: its *.example is less specific",
        "route         [1] prefix /cart",
        "not [0] prefix /cart, header x-user-type exact \"premium\": it wants header x-user-type exact \
         \"premium\", it is \"basic\"",
        "not [2] path /old: it wants path /old, the path is /cart/1",
        "cluster       cart",
        "90 of 100",
        "endpoints     one of 1",
        "10.1.0.1:80",
        "not 10.1.0.2:80: its health_status is UNHEALTHY",
        "result        GET /cart/1?a for shop.example goes to cluster cart",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn headers_client_and_random_number_decide() {
    for (arguments, line) in [
        (&["-H", "x-user-type: premium"][..], "GET /v2/1 for shop.example goes to cluster cart-v2"),
        (&["--random", "95"], "GET /cart/1 for shop.example goes to cluster cart-v2"),
        (&["--from", "10.0.0.9"], "filter chain  shop"),
        (&["-H", "host: other.example"], "418 (direct_response)"),
        (&["--listener", "metrics"], "listener      metrics"),
        (&["-H", "x-forwarded-for: 10.9.9.9"], "goes to cluster cart"),
    ] {
        let request = ["GET", "http://shop.example/cart/1"];
        let output = explain(&[&request[..], arguments].concat());
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains(line), "{line}\nis not in\n{}", text(&output));
    }
}

#[test]
fn a_request_that_would_be_refused_says_how_and_fails() {
    for (arguments, line) in [
        (
            &["GET", "http://elsewhere/"][..],
            "404 (route_not_found): no virtual host takes elsewhere",
        ),
        (&["GET", "http://shop.example:8443/"], "not shop: its shop.example is without port 8443"),
        (&["GET", "http://shop.example/nothing"], "404 (route_not_found): no route"),
        (&["GET", "http://shop.example/gone"], "503 (no_healthy_upstream): cluster gone"),
        (&["GET", "http://shop.example/unknown"], "404 (cluster_not_found): there is no cluster"),
        (&["GET", "http://shop.example/dropped"], "503 (drop_overload): cluster dropped drops it"),
        (
            &["GET", "http://shop.example/cart", "-H", "x_user: 1"],
            "400 (http1.unexpected_underscore)",
        ),
        (&["GET", "http://shop.example/cart", "-H", "host: a/b"], "400 (http.invalid_authority)"),
        (
            &["GET", "https://shop.example/cart"],
            "not edge on 0.0.0.0:8443: its chain takes plain text",
        ),
    ] {
        let output = explain(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(line), "{line}\nis not in\n{}", text(&output));
    }
}

#[test]
fn a_subset_is_named_and_who_is_not_in_it() {
    let divided = BOOTSTRAP.replace("- {name: gone}", DIVIDED);
    let asking = divided.replace("route: {cluster: gone}", WANTED);
    let missing = asking.replace("{v: \"2\"}}}}", "{v: \"3\"}}}}");
    let cases: [(&str, &[&str]); 3] = [
        (
            &asking,
            &[
                "the subset with \"v\"=\"2\"",
                "endpoints     one of 1",
                "not 10.1.0.1:80: it is in another subset",
            ],
        ),
        (&missing, &["no subset is for \"v\"=\"3\"; the fallback is ANY_ENDPOINT", "one of 2"]),
        (&divided, &["no metadata_match asks for a subset; the fallback is ANY_ENDPOINT"]),
    ];
    for (bootstrap, lines) in cases {
        let output = explain_in(bootstrap, &["GET", "http://shop.example/gone"]);
        assert!(output.status.success(), "{}", text(&output));
        for line in lines {
            assert!(text(&output).contains(line), "{line}\nis not in\n{}", text(&output));
        }
    }
}

#[test]
fn a_request_is_explained_as_the_proxy_would_serve_it() {
    for (url, lines) in [
        ("http://shop.example/ill", &["one of 2, by ROUND_ROBIN, in panic"][..]),
        ("http://shop.example/passed-on", &["endpoints     the address the connection"]),
        (
            "http://shop.example:9091/cart",
            &["listener      metrics", "not edge on 0.0.0.0:8443: the request asks for port 9091"],
        ),
        // Written by the proxy before it looks for a route; what the client claims is taken away.
        ("http://shop.example/caller", &["200 (direct_response)"]),
    ] {
        let headers = ["-H", "host: shop.example", "-H", "x-envoy-internal: true"];
        let output = explain(&[&["GET", url][..], &headers].concat());
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        for line in lines {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}

#[test]
fn programs_get_json() {
    let output = explain(&["GET", "http://shop.example/old", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["result"], "301 to http://shop.example/new");
    assert_eq!(report["served"], true);
    let route = &report["steps"][3];
    assert_eq!(
        (&route["kind"], &route["taken"]["name"]),
        (&"route".into(), &"[2] path /old".into())
    );
    assert_eq!(route["others"].as_array().unwrap().len(), 8);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    for (arguments, code, line) in [
        (&["GET"][..], 2, "<URL>"),
        (&["GET", "shop.example"], 1, "must begin with http:// or https://"),
    ] {
        let output = explain(arguments);
        assert_eq!(output.status.code(), Some(code));
        assert!(text(&output).contains(line), "{}", text(&output));
    }
}
