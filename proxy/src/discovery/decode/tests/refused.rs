//! Tables of bad messages, each with the field it is refused for and the beginning of the reason.

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::super::{bootstrap, cluster, listener, route_config, secret};
use super::decode;

const ROUTER: &str = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const MANAGER: &str = "'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const FILE: &str =
    "'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const SOCKET: &str = "name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const OTEL: &str = "'@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig";
const ZIPKIN: &str = "'@type': type.googleapis.com/envoy.config.trace.v3.ZipkinConfig";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const ADDRESS: &str = "address: {socket_address: {address: 127.0.0.1, port_value: 1}}";

/// Checks that each message of the table is refused with exactly one error, which begins as the table says.
///
/// A table has two lines for each message: its YAML, and indented the beginning of the error.
fn check<T: std::fmt::Debug>(table: &str, decode: impl Fn(&str) -> Result<T, Vec<String>>) {
    let lines: Vec<_> = table.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() > 4, "an empty table checks nothing");
    for case in lines.chunks(2) {
        let [yaml, expected] = case else { panic!("half a case: {case:?}") };
        let expected = expected.strip_prefix("    ").unwrap();
        let errors = decode(yaml).expect_err(yaml);
        assert_eq!(errors.len(), 1, "{yaml}: {errors:?}");
        let error = &errors[0];
        assert!(error.starts_with(expected), "{yaml}\n  wanted {expected}\n  got    {error}");
    }
}

/// The errors as seen from `place`.
fn from<T>(place: &str, result: Result<T, Vec<String>>) -> Result<T, Vec<String>> {
    let relative = |error: &String| {
        let rest = error.strip_prefix(place).unwrap_or_else(|| panic!("not in {place}: {error}"));
        rest.strip_prefix('.').unwrap_or(rest).to_owned()
    };
    result.map_err(|errors| errors.iter().map(relative).collect())
}

fn valid_manager() -> String {
    format!("stat_prefix: s, route_config: {{}}, http_filters: [{ROUTER}]")
}

/// The filters of a chain whose connection manager has these fields.
fn filters(fields: &str) -> String {
    format!("filters: [{{name: f, typed_config: {{{MANAGER}, {fields}}}}}]")
}

/// A listener with one such chain.
fn listener_with(fields: &str) -> String {
    format!("{{{ADDRESS}, filter_chains: [{{{}}}]}}", filters(fields))
}

#[test]
fn routes() {
    check(include_str!("refused/routes.txt"), |route| {
        let table = format!("virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]");
        let result = decode::<RouteConfiguration, _>(&table, route_config);
        from("virtual_hosts[0].routes[0]", result)
    });
}

#[test]
fn route_tables() {
    check(include_str!("refused/route_tables.txt"), |yaml| {
        decode::<RouteConfiguration, _>(yaml, route_config)
    });
}

#[test]
fn jwt_authn() {
    const TYPE: &str =
        "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    const KEYS: &str = r#"local_jwks: {inline_string: '{"keys": [{"kty": "oct", "k": "YQ"}]}'}"#;
    check(include_str!("refused/jwt_authn.txt"), |fields| {
        let fields = fields.replace("KEYS", KEYS);
        let filter = format!("{{name: f, typed_config: {{'@type': {TYPE}, {fields}}}}}");
        let manager =
            format!("stat_prefix: s, route_config: {{}}, http_filters: [{filter}, {ROUTER}]");
        let result = decode::<Listener, _>(&listener_with(&manager), listener);
        from("filter_chains[0].filters[0].typed_config.http_filters[0].typed_config", result)
    });
}

#[test]
fn connection_managers() {
    check(include_str!("refused/connection_managers.txt"), |fields| {
        let fields = fields
            .replace("VALID", &valid_manager())
            .replace("ROUTER", ROUTER)
            .replace("OTEL", OTEL)
            .replace("ZIPKIN", ZIPKIN)
            .replace("FILE", FILE);
        let result = decode::<Listener, _>(&listener_with(&fields), listener);
        from("filter_chains[0].filters[0].typed_config", result)
    });
}

#[test]
fn policies() {
    let name = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
    let template = format!("'@type': type.googleapis.com/{name}");
    let filter = "'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let mtls = "'@type': type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
    let any = "[{any: true}]";
    check(include_str!("refused/policies.txt"), |fields| {
        let fields = match (fields.strip_prefix("RULE"), fields.strip_prefix("ID")) {
            (Some(rule), _) => {
                let policy = format!("{{permissions: [{{{rule}], principals: {any}}}");
                format!("rules: {{policies: {{p: {policy}}}}}")
            }
            (_, Some(id)) => {
                let policy = format!("{{permissions: {any}, principals: [{{{id}]}}");
                format!("rules: {{policies: {{p: {policy}}}}}")
            }
            _ => fields.to_owned(),
        };
        let fields = fields.replace("TEMPLATE", &template).replace("MTLS", mtls);
        let filters = format!("[{{name: f, typed_config: {{{filter}, {fields}}}}}, {ROUTER}]");
        let manager = format!("stat_prefix: s, route_config: {{}}, http_filters: {filters}");
        let result = decode::<Listener, _>(&listener_with(&manager), listener);
        let place = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";
        from(place, result)
    });
}

#[test]
fn listeners() {
    let filters = filters(&valid_manager());
    check(include_str!("refused/listeners.txt"), |yaml| {
        let yaml = yaml
            .replace("CHAIN", &format!("{{{filters}}}"))
            .replace("FILTERS", &filters)
            .replace("ADDRESS", ADDRESS);
        decode::<Listener, _>(&yaml, listener)
    });
}

#[test]
fn clusters() {
    let http = format!("{OPTIONS}: {{'@type': type.googleapis.com/{OPTIONS}");
    let place = format!("typed_extension_protocol_options[{OPTIONS:?}]");
    let table = include_str!("refused/clusters.txt").replace("OPTIONS", &place);
    check(&table, |fields| {
        let fields = fields.replace("HTTP", &http).replace("SOCKET", SOCKET);
        decode::<Cluster, _>(&format!("{{{fields}}}"), cluster)
    });
}

#[test]
fn secrets() {
    check(include_str!("refused/secrets.txt"), |yaml| decode::<Secret, _>(yaml, secret));
}

#[test]
fn bootstraps() {
    check(include_str!("refused/bootstraps.txt"), |yaml| decode::<Bootstrap, _>(yaml, bootstrap));
}

#[test]
fn an_optional_filter_is_skipped() {
    let other =
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    let read = |mark: &str| {
        let filter = format!("{{name: f, {mark} typed_config: {{'@type': {other}}}}}");
        let fields =
            format!("stat_prefix: s, route_config: {{}}, http_filters: [{filter}, {ROUTER}]");
        let result = decode::<Listener, _>(&listener_with(&fields), listener);
        from("filter_chains[0].filters[0].typed_config", result)
    };
    assert!(read("is_optional: true,").is_ok());
    assert!(read("disabled: true,").is_ok());
    let errors = read("").unwrap_err();
    assert!(errors[0].starts_with("http_filters[0].typed_config: envoy.extensions."), "{errors:?}");
}

#[test]
fn a_limit_of_a_listener_is_a_number() {
    let read = |limit: &str| {
        let layer = format!("{{envoy.resource_limits.listener.in.connection_limit: {limit}}}");
        let yaml = format!("{{layered_runtime: {{layers: [{{name: l, static_layer: {layer}}}]}}}}");
        decode::<Bootstrap, _>(&yaml, bootstrap)
    };
    assert_eq!(read("5").unwrap().overload.listener_limits.get("in"), Some(&5));
    let errors = read("many").unwrap_err();
    assert!(errors[0].contains("must be a number"), "{errors:?}");
}

#[test]
fn all_errors_of_a_file_are_reported_together() {
    let yaml = "static_resources: {clusters: [{name: a, connect_timeout: 0s}, {name: b}, {}], \
        listeners: [{name: l}]}";
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
