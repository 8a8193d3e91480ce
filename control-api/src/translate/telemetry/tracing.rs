//! Traces: which requests are traced, where spans go, and which tags they have.

use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
use xds::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, HttpService, HttpUri, TypedExtensionConfig,
};
use xds::envoy::config::trace::v3::tracing::Http as TracingHttp;
use xds::envoy::config::trace::v3::tracing::http::ConfigType;
use xds::envoy::config::trace::v3::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing as EnvoyTracing;
use xds::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::EnvironmentResourceDetectorConfig;
use xds::envoy::r#type::metadata::v3::metadata_key::PathSegment;
use xds::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
use xds::envoy::r#type::metadata::v3::metadata_kind::{Kind, Request};
use xds::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind};
use xds::envoy::r#type::tracing::v3::custom_tag::{
    Environment, Header, Literal, Metadata, Type,
};
use xds::envoy::r#type::tracing::v3::CustomTag as EnvoyTag;
use xds::envoy::r#type::v3::Percent;

use super::{Class, applicable};
use crate::model::Mesh;
use crate::model::duration::Duration;
use crate::model::istio::extension_provider::{
    ExtensionProvider, HttpHeader, OpenTelemetry, Zipkin,
};
use crate::model::istio::mesh_config::ProxyTracing;
use crate::model::istio::selector::WorkloadMode;
use crate::model::istio::telemetry::{CustomTag, Tracing};
use crate::translate::providers::Target;
use crate::translate::proxy::{Proxy, Role};
use crate::translate::{providers, values};

/// The share of requests that is traced unless something else is said, in percent.
const SAMPLING: f64 = 1.0;
/// How long handing over spans may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a connection manager traces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traced {
    /// Its field `tracing`.
    pub tracing: Option<EnvoyTracing>,
    /// Whether a request's id tells if it is traced; none to say nothing of it.
    pub by_request_id: Option<bool>,
}

/// How requests are traced.
pub fn tracing(mesh: &Mesh, proxy: &Proxy, class: Class) -> Traced {
    let settings = proxy.settings(mesh).tracing.clone().unwrap_or_default();
    let telemetries = applicable(mesh, proxy);
    let said: Vec<&Tracing> = telemetries.iter().flat_map(|it| &it.tracing).collect();
    let default = mesh.config.default_providers.tracing.first();
    if said.is_empty() && default.is_none() {
        return by_settings(mesh, proxy, &settings);
    }
    let spec = merged(&said, default.map(String::as_str), class);
    let provider = spec.provider.and_then(|it| providers::named(mesh, it));
    let Some(mut tracing) =
        provider.filter(|_| !spec.off).and_then(|it| of_provider(mesh, proxy, it))
    else {
        return Traced::default();
    };
    sample(&mut tracing, spec.sampling.unwrap_or_else(|| sampling(&settings)));
    let mut tags = if spec.istio_tags { istio_tags(proxy) } else { Vec::new() };
    let own = spec.tags.filter(|it| !it.is_empty()).unwrap_or(&settings.custom_tags);
    tags.extend(own.iter().map(|(name, it)| tag(name, it)));
    tags.sort_by(|one, other| one.tag.cmp(&other.tag));
    tracing.custom_tags = tags;
    if tracing.max_path_tag_length.is_none() && settings.max_path_tag_length != 0 {
        tracing.max_path_tag_length = Some(settings.max_path_tag_length);
    }
    tracing.no_context_propagation = spec.no_propagation;
    Traced { tracing: Some(tracing), by_request_id: Some(spec.by_request_id) }
}

/// What holds for one side of a proxy.
struct Spec<'m> {
    provider: Option<&'m str>,
    off: bool,
    sampling: Option<f64>,
    tags: Option<&'m std::collections::BTreeMap<String, CustomTag>>,
    by_request_id: bool,
    istio_tags: bool,
    no_propagation: bool,
}

fn merged<'m>(said: &[&'m Tracing], default: Option<&'m str>, class: Class) -> Spec<'m> {
    let mut spec = Spec {
        provider: default,
        off: false,
        sampling: None,
        tags: None,
        by_request_id: true,
        istio_tags: true,
        no_propagation: false,
    };
    for tracing in said {
        let mode = tracing.r#match.as_ref().map(|it| it.mode).unwrap_or_default();
        let of_one = matches!(mode, WorkloadMode::Client | WorkloadMode::Server);
        if of_one && mode != class.mode() {
            continue;
        }
        if let Some(first) = tracing.providers.first() {
            spec.provider = Some(&first.name);
        }
        spec.off = tracing.disable_span_reporting.unwrap_or(spec.off);
        spec.sampling = tracing.random_sampling_percentage.or(spec.sampling);
        if !tracing.custom_tags.is_empty() {
            spec.tags = Some(&tracing.custom_tags);
        }
        let by_request_id = tracing.use_request_id_for_trace_sampling;
        spec.by_request_id = by_request_id.unwrap_or(spec.by_request_id);
        spec.istio_tags = tracing.enable_istio_tags.unwrap_or(spec.istio_tags);
        let no_propagation = tracing.disable_context_propagation;
        spec.no_propagation = no_propagation.unwrap_or(spec.no_propagation);
    }
    spec
}

/// What the mesh's settings say where no `Telemetry` says anything.
fn by_settings(mesh: &Mesh, proxy: &Proxy, settings: &ProxyTracing) -> Traced {
    if !mesh.config.enable_tracing {
        return Traced::default();
    }
    let mut tracing = EnvoyTracing::default();
    sample(&mut tracing, sampling(settings));
    let istio = settings.enable_istio_tags.unwrap_or(true);
    let mut tags = if istio { istio_tags(proxy) } else { Vec::new() };
    tags.extend(settings.custom_tags.iter().map(|(name, it)| tag(name, it)));
    tags.sort_by(|one, other| one.tag.cmp(&other.tag));
    tracing.custom_tags = tags;
    if settings.max_path_tag_length != 0 {
        tracing.max_path_tag_length = Some(settings.max_path_tag_length);
    }
    Traced { tracing: Some(tracing), by_request_id: None }
}

fn sampling(settings: &ProxyTracing) -> f64 {
    match settings.sampling {
        Some(sampling) if sampling > 100.0 => SAMPLING,
        Some(sampling) if sampling > 0.0 => sampling,
        _ => SAMPLING,
    }
}

fn sample(tracing: &mut EnvoyTracing, percent: f64) {
    tracing.client_sampling = Some(Percent { value: 100.0 });
    tracing.overall_sampling = Some(Percent { value: 100.0 });
    tracing.random_sampling = Some(Percent { value: percent });
}

/// Spans go there. None if the provider is for something else, or its service is not known.
fn of_provider(mesh: &Mesh, proxy: &Proxy, provider: &ExtensionProvider) -> Option<EnvoyTracing> {
    let (name, config, longest) = if let Some(zipkin) = &provider.zipkin {
        let target = providers::cluster(mesh, &zipkin.service, zipkin.port)?;
        let config = values::any(&zipkin_config(zipkin, &target));
        ("envoy.tracers.zipkin", config, zipkin.max_tag_length)
    } else {
        let otel = provider.opentelemetry.as_ref()?;
        let target = providers::cluster(mesh, &otel.service, otel.port)?;
        let config = values::any(&otel_config(otel, &target, proxy));
        ("envoy.tracers.opentelemetry", config, otel.max_tag_length)
    };
    Some(EnvoyTracing {
        provider: Some(TracingHttp {
            name: name.to_owned(),
            config_type: Some(ConfigType::TypedConfig(config)),
        }),
        max_path_tag_length: (longest != 0).then_some(longest),
        // A gateway begins traces: what it asks has a span of its own.
        spawn_upstream_span: (proxy.role == Role::Router).then_some(true),
        ..EnvoyTracing::default()
    })
}

fn zipkin_config(zipkin: &Zipkin, target: &Target) -> ZipkinConfig {
    let path = if zipkin.path.is_empty() { "/api/v2/spans" } else { &zipkin.path };
    let option = match zipkin.trace_context_option.as_str() {
        "USE_B3_WITH_W3C_PROPAGATION" => TraceContextOption::UseB3WithW3cPropagation,
        _ => TraceContextOption::UseB3,
    };
    ZipkinConfig {
        trace_id_128bit: !zipkin.enable_64bit_trace_id,
        shared_span_context: Some(false),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
        trace_context_option: option.into(),
        collector_service: Some(HttpService {
            http_uri: Some(HttpUri {
                uri: format!("http://{}{path}", target.host),
                http_upstream_type: Some(HttpUpstreamType::Cluster(target.cluster.clone())),
                timeout: Some(values::duration(zipkin.timeout.unwrap_or(TIMEOUT))),
            }),
            request_headers_to_add: headers(&zipkin.headers),
        }),
        ..ZipkinConfig::default()
    }
}

fn otel_config(otel: &OpenTelemetry, target: &Target, proxy: &Proxy) -> OpenTelemetryConfig {
    let mut config =
        OpenTelemetryConfig { service_name: proxy.cluster.clone(), ..Default::default() };
    if let Some(http) = &otel.http {
        config.http_service = Some(HttpService {
            http_uri: Some(HttpUri {
                uri: format!("{}/{}", target.host, http.path.trim_start_matches('/')),
                http_upstream_type: Some(HttpUpstreamType::Cluster(target.cluster.clone())),
                timeout: http.timeout.map(values::duration),
            }),
            request_headers_to_add: headers(&http.headers),
        });
    } else {
        let mut service = target.grpc();
        if let Some(grpc) = &otel.grpc {
            service.timeout = grpc.timeout.map(values::duration);
            service.initial_metadata = grpc.initial_metadata.iter().map(header).collect();
        }
        config.grpc_service = Some(service);
    }
    let detectors = otel.resource_detectors.as_ref();
    if detectors.is_some_and(|it| it.environment.is_some()) {
        config.resource_detectors.push(TypedExtensionConfig {
            name: "envoy.tracers.opentelemetry.resource_detectors.environment".to_owned(),
            typed_config: Some(values::any(&EnvironmentResourceDetectorConfig::default())),
        });
    }
    config
}

fn header(header: &HttpHeader) -> HeaderValue {
    // A value by name is the control plane's: proxies do not have it.
    let value = match header.env_name.as_str() {
        "" => header.value.clone(),
        name => std::env::var(name).unwrap_or_default(),
    };
    HeaderValue { key: header.name.clone(), value, ..HeaderValue::default() }
}

fn headers(all: &[HttpHeader]) -> Vec<HeaderValueOption> {
    let option = |it: &HttpHeader| HeaderValueOption {
        header: Some(header(it)),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    all.iter().map(option).collect()
}

fn tag(name: &str, tag: &CustomTag) -> EnvoyTag {
    let kind = if let Some(literal) = &tag.literal {
        Some(Type::Literal(Literal { value: literal.value.clone() }))
    } else if let Some(environment) = &tag.environment {
        let default_value = environment.default_value.clone();
        Some(Type::Environment(Environment { name: environment.name.clone(), default_value }))
    } else if let Some(header) = &tag.header {
        let default_value = header.default_value.clone();
        Some(Type::RequestHeader(Header { name: header.name.clone(), default_value }))
    } else {
        tag.formatter.as_ref().map(|formatter| Type::Value(formatter.value.clone()))
    };
    EnvoyTag { tag: name.to_owned(), r#type: kind }
}

/// Who the proxy is, and what policies that are only counted would have done.
fn istio_tags(proxy: &Proxy) -> Vec<EnvoyTag> {
    let label = |name: &str, default: &str| {
        proxy.labels.get(name).map_or(default, String::as_str).to_owned()
    };
    let or_unknown =
        |value: &str| if value.is_empty() { "unknown".to_owned() } else { value.to_owned() };
    let literals = [
        ("istio.canonical_revision", label("service.istio.io/canonical-revision", "latest")),
        ("istio.canonical_service", label("service.istio.io/canonical-name", "unknown")),
        ("istio.mesh_id", or_unknown(&proxy.mesh_id)),
        ("istio.namespace", proxy.namespace.clone()),
        ("istio.cluster_id", or_unknown(&proxy.cluster_id)),
    ];
    let literal = |(tag, value): (&str, String)| EnvoyTag {
        tag: tag.to_owned(),
        r#type: Some(Type::Literal(Literal { value })),
    };
    let mut tags: Vec<_> = literals.into_iter().map(literal).collect();
    for action in ["allow", "deny"] {
        for (what, key) in [("name", "effective_policy_id"), ("result", "engine_result")] {
            let segment = Segment::Key(format!("istio_dry_run_{action}_shadow_{key}"));
            let metadata = Metadata {
                kind: Some(MetadataKind { kind: Some(Kind::Request(Request {})) }),
                metadata_key: Some(MetadataKey {
                    key: "envoy.filters.http.rbac".to_owned(),
                    path: vec![PathSegment { segment: Some(segment) }],
                }),
                ..Metadata::default()
            };
            tags.push(EnvoyTag {
                tag: format!("istio.authorization.dry_run.{action}_policy.{what}"),
                r#type: Some(Type::Metadata(metadata)),
            });
        }
    }
    tags
}
