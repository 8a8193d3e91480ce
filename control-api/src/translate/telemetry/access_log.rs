//! Access logs: which are written, where to, and in what form.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Struct;
use xds::envoy::config::accesslog::v3::access_log::ConfigType;
use xds::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use xds::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, extension_filter,
};
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::config::core::v3::substitution_format_string::Format;
use xds::envoy::config::core::v3::{
    ApiVersion, DataSource, JsonFormatOptions, SubstitutionFormatString,
};
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use xds::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use xds::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};

use super::{Class, applicable, names};
use crate::model::Mesh;
use crate::model::istio::extension_provider::{
    self, ExtensionProvider, GrpcAccessLog, OtelAccessLog,
};
use crate::model::istio::mesh_config::AccessLogEncoding;
use crate::model::istio::selector::WorkloadMode;
use crate::model::istio::telemetry::AccessLogging;
use crate::translate::proxy::Proxy;
use crate::translate::{providers, values};

/// What Istio writes unless it is told otherwise: a name, and Envoy's operator.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// The same in a line of text.
const LINE: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
    %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Facts about peers that services for logs are told.
const PEERS: [&str; 6] = [
    "upstream_peer",
    "downstream_peer",
    "wasm.upstream_peer",
    "wasm.upstream_peer_id",
    "wasm.downstream_peer",
    "wasm.downstream_peer_id",
];

/// The access logs of a proxy's requests, or of connections without HTTP.
pub fn access_logs(mesh: &Mesh, proxy: &Proxy, class: Class) -> Vec<AccessLog> {
    logs(mesh, proxy, class, None)
}

/// The access logs of a listener itself: connections that fit no filter chain.
pub fn listener_access_logs(mesh: &Mesh, proxy: &Proxy, class: Class) -> Vec<AccessLog> {
    if mesh.config.disable_envoy_listener_log {
        return Vec::new();
    }
    let flags = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    logs(mesh, proxy, class, Some(filter(FilterSpecifier::ResponseFlagFilter(flags))))
}

fn logs(mesh: &Mesh, proxy: &Proxy, class: Class, only: Option<AccessLogFilter>) -> Vec<AccessLog> {
    let telemetries = applicable(mesh, proxy);
    let said: Vec<&[AccessLogging]> = telemetries
        .iter()
        .map(|it| it.access_logging.as_slice())
        .filter(|it| !it.is_empty())
        .collect();
    let wanted = wanted(mesh, &said, class.mode());
    let known: Vec<(AccessLog, Option<Log<'_>>)> = wanted
        .into_iter()
        .filter_map(|(name, log)| {
            let provider = providers::named(mesh, name)?;
            Some((of_provider(mesh, provider)?, log))
        })
        .collect();
    if known.is_empty() {
        return by_settings(mesh, only).into_iter().collect();
    }
    let mut logs = Vec::new();
    for (mut log, chosen) in known {
        let Some(chosen) = chosen else { continue };
        let expression = chosen.expression.map(|expression| {
            let cel = ExpressionFilter { expression: expression.to_owned() };
            filter(FilterSpecifier::ExtensionFilter(ExtensionFilter {
                name: "envoy.access_loggers.extension_filters.cel".to_owned(),
                config_type: Some(extension_filter::ConfigType::TypedConfig(values::any(&cel))),
            }))
        });
        let mut filters: Vec<_> = only.clone().into_iter().chain(expression).collect();
        log.filter = if filters.len() > 1 {
            Some(filter(FilterSpecifier::AndFilter(AndFilter { filters })))
        } else {
            filters.pop()
        };
        logs.push(log);
    }
    logs
}

fn filter(specifier: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}

/// A log that is written.
#[derive(Clone, Copy)]
struct Log<'m> {
    /// Which requests it has; none for all.
    expression: Option<&'m str>,
}

/// The providers that are written to, by name; none for those that are not, though they are named.
fn wanted<'m>(
    mesh: &'m Mesh,
    said: &[&'m [AccessLogging]],
    mode: WorkloadMode,
) -> BTreeMap<&'m str, Option<Log<'m>>> {
    let default: Vec<&str> =
        mesh.config.default_providers.access_logging.iter().map(String::as_str).collect();
    if said.is_empty() {
        return default.into_iter().map(|it| (it, Some(Log { expression: None }))).collect();
    }
    let fits = |log: &AccessLogging| {
        let of = log.r#match.as_ref().map_or(WorkloadMode::ClientAndServer, |it| it.mode);
        matches!(of, WorkloadMode::ClientAndServer) || of == mode
    };
    let mut in_scope: BTreeSet<&str> = default.iter().copied().collect();
    let mut last: BTreeMap<&str, Log<'m>> = BTreeMap::new();
    for logs in said {
        let mut named = BTreeSet::new();
        for log in logs.iter().filter(|it| fits(it)) {
            let expression = log.filter.as_ref().map(|it| it.expression.as_str());
            for name in names(&log.providers) {
                named.insert(name);
                last.insert(name, Log { expression });
            }
        }
        if !named.is_empty() {
            in_scope = named;
        }
    }
    let mut wanted = BTreeMap::new();
    let mut parents = default;
    for log in said.iter().copied().flatten() {
        if !log.providers.is_empty() {
            parents = names(&log.providers);
        }
        for name in parents.iter().copied().filter(|it| in_scope.contains(it)) {
            if fits(log) {
                let off = log.disabled == Some(true);
                let log = last.get(name).copied().unwrap_or(Log { expression: None });
                wanted.insert(name, (!off).then_some(log));
            }
        }
    }
    wanted
}

/// What the mesh's settings say where no `Telemetry` says anything.
fn by_settings(mesh: &Mesh, only: Option<AccessLogFilter>) -> Option<AccessLog> {
    let path = mesh.config.access_log_file.as_str();
    (!path.is_empty()).then(|| AccessLog { filter: only, ..file(path, settings_format(mesh)) })
}

fn settings_format(mesh: &Mesh) -> SubstitutionFormatString {
    let format = mesh.config.access_log_format.as_str();
    match mesh.config.access_log_encoding {
        AccessLogEncoding::Text => text(format),
        AccessLogEncoding::Json => json(serde_json::from_str(format).ok().as_ref()),
    }
}

fn of_provider(mesh: &Mesh, provider: &ExtensionProvider) -> Option<AccessLog> {
    if let Some(log) = &provider.envoy_file_access_log {
        let plain = log.log_format.is_none() && !log.omit_empty_values;
        let mut format = match &log.log_format {
            None if plain && provider.name == "envoy" => settings_format(mesh),
            None => text(""),
            Some(extension_provider::LogFormat { labels: Some(labels), .. }) => json(Some(labels)),
            Some(format) => text(format.text.as_deref().unwrap_or_default()),
        };
        format.omit_empty_values = log.omit_empty_values;
        let path = if log.path.is_empty() { "/dev/stdout" } else { &log.path };
        return Some(file(path, format));
    }
    if let Some(log) = &provider.envoy_otel_als {
        return open_telemetry(mesh, log);
    }
    if let Some(log) = &provider.envoy_http_als {
        let config = HttpGrpcAccessLogConfig {
            common_config: Some(service(mesh, log, "http_envoy_accesslog")?),
            additional_request_headers_to_log: log.additional_request_headers_to_log.clone(),
            additional_response_headers_to_log: log.additional_response_headers_to_log.clone(),
            additional_response_trailers_to_log: log.additional_response_trailers_to_log.clone(),
        };
        return Some(access_log("envoy.access_loggers.http_grpc", values::any(&config)));
    }
    let log = provider.envoy_tcp_als.as_ref()?;
    let common_config = Some(service(mesh, log, "tcp_envoy_accesslog")?);
    let config = TcpGrpcAccessLogConfig { common_config };
    Some(access_log("envoy.tcp_grpc_access_log", values::any(&config)))
}

fn access_log(name: &str, config: prost_types::Any) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..AccessLog::default()
    }
}

fn file(path: &str, format: SubstitutionFormatString) -> AccessLog {
    let config = FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(AccessLogFormat::LogFormat(format)),
    };
    access_log("envoy.access_loggers.file", values::any(&config))
}

fn text(format: &str) -> SubstitutionFormatString {
    let line = match format {
        "" => LINE.to_owned(),
        format if format.ends_with('\n') => format.to_owned(),
        format => format!("{format}\n"),
    };
    let specifier = Some(Specifier::InlineString(line));
    SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource { specifier, ..DataSource::default() })),
        ..SubstitutionFormatString::default()
    }
}

fn json(labels: Option<&serde_json::Value>) -> SubstitutionFormatString {
    let given = labels.and_then(serde_json::Value::as_object).filter(|it| !it.is_empty());
    let fields = match given {
        Some(given) => given.iter().map(|(name, it)| (name.clone(), values::json(it))).collect(),
        None => FIELDS
            .iter()
            .map(|(name, operator)| ((*name).to_owned(), values::text(*operator)))
            .collect(),
    };
    SubstitutionFormatString {
        format: Some(Format::JsonFormat(Struct { fields })),
        json_format_options: Some(JsonFormatOptions::default()),
        ..SubstitutionFormatString::default()
    }
}

/// A service that speaks Envoy's protocol for logs.
fn service(
    mesh: &Mesh,
    log: &GrpcAccessLog,
    default_name: &str,
) -> Option<CommonGrpcAccessLogConfig> {
    let target = providers::cluster(mesh, &log.service, log.port)?;
    let objects = if log.filter_state_objects_to_log.is_empty() {
        PEERS.iter().take(2).map(ToString::to_string).collect()
    } else {
        log.filter_state_objects_to_log.clone()
    };
    let name = if log.log_name.is_empty() { default_name } else { &log.log_name };
    Some(CommonGrpcAccessLogConfig {
        log_name: name.to_owned(),
        grpc_service: Some(target.grpc()),
        transport_api_version: ApiVersion::V3.into(),
        filter_state_objects_to_log: objects,
        ..CommonGrpcAccessLogConfig::default()
    })
}

fn open_telemetry(mesh: &Mesh, log: &OtelAccessLog) -> Option<AccessLog> {
    let target = providers::cluster(mesh, &log.service, log.port)?;
    let name = if log.log_name.is_empty() { "otel_envoy_accesslog" } else { &log.log_name };
    let format = log.log_format.as_ref();
    let line = format.map(|it| it.text.as_str()).filter(|it| !it.is_empty()).unwrap_or(LINE);
    let string = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
    let labels = format.and_then(|it| it.labels.as_ref()).and_then(serde_json::Value::as_object);
    let attributes = labels.filter(|it| !it.is_empty()).map(|labels| {
        let one = |(key, value): (&String, &serde_json::Value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            KeyValue { key: key.clone(), value: Some(string(&text)) }
        };
        KeyValueList { values: labels.iter().map(one).collect() }
    });
    let config = OpenTelemetryAccessLogConfig {
        common_config: Some(CommonGrpcAccessLogConfig {
            log_name: name.to_owned(),
            grpc_service: Some(target.grpc()),
            transport_api_version: ApiVersion::V3.into(),
            filter_state_objects_to_log: PEERS.iter().map(ToString::to_string).collect(),
            ..CommonGrpcAccessLogConfig::default()
        }),
        disable_builtin_labels: true,
        body: Some(string(line)),
        attributes,
        ..OpenTelemetryAccessLogConfig::default()
    };
    Some(access_log("envoy.access_loggers.open_telemetry", values::any(&config)))
}
