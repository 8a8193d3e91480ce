//! Collectors of spans: `OpenTelemetryConfig`, `ZipkinConfig`.

use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;
use prost_types::Any;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::trace::v3::tracing::Http;
use xds::envoy::config::trace::v3::tracing::http::ConfigType;
use xds::envoy::config::trace::v3::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig};
use xds::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::{
    EnvironmentResourceDetectorConfig, StaticConfigResourceDetectorConfig,
};
use xds::envoy::extensions::tracers::opentelemetry::samplers::v3::{
    AlwaysOnSamplerConfig, ParentBasedSamplerConfig, TraceIdRatioBasedSamplerConfig,
};

use super::packed;
use crate::config::service::{HttpService, HttpUri, OtlpCollector};
use crate::config::tracing::{OpenTelemetry, Provider, Sampler, Sampling, Zipkin};
use crate::discovery::decode::errors::{At, Result, each, optional, refuse, required};
use crate::discovery::decode::extension::{unpack, unsupported};
use crate::discovery::decode::service::{grpc_service, http_service};
use crate::discovery::decode::value::{enumeration, fraction, name, non_empty};

/// What a process is called that has no name, as Envoy says it.
const UNKNOWN_SERVICE: &str = "unknown_service:envoy";
/// Attributes of OpenTelemetry's environment.
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Envoy's default.
const WAITING_SPANS: u32 = 1024;
/// Envoy's default of `tracing.zipkin.request_timeout`.
const ZIPKIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said of a process that spans or records come from.
pub(in crate::discovery::decode) type Attributes = Vec<(Box<str>, Box<str>)>;

/// A collector.
pub(super) fn provider(proto: &Http) -> Result<Provider> {
    let Http { name: _, config_type } = proto;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    packed_provider(any).at("typed_config")
}

fn packed_provider(any: &Any) -> Result<Provider> {
    if let Some(proto) = unpack(any)? {
        return Ok(Provider::OpenTelemetry(open_telemetry(&proto)?));
    }
    if let Some(proto) = unpack(any)? {
        return Ok(Provider::Zipkin(zipkin(&proto)?));
    }
    unsupported(any)
}

fn open_telemetry(proto: &OpenTelemetryConfig) -> Result<OpenTelemetry> {
    let OpenTelemetryConfig {
        grpc_service: grpc,
        http_service: http,
        service_name,
        resource_detectors,
        sampler: chosen,
        max_cache_size,
    } = proto;
    let collector = match (grpc, http) {
        (Some(_), Some(_)) => {
            return refuse("http_service", "cannot be set together with grpc_service");
        }
        (Some(proto), None) => Some(OtlpCollector::Grpc(grpc_service(proto).at("grpc_service")?)),
        (None, Some(proto)) => Some(OtlpCollector::Http(http_service(proto).at("http_service")?)),
        (None, None) => None,
    };
    let service = if service_name.is_empty() { UNKNOWN_SERVICE } else { service_name };
    let mut resource = vec![
        ("service.name".into(), service.into()),
        ("telemetry.sdk.name".into(), "outrigger".into()),
        ("telemetry.sdk.version".into(), env!("CARGO_PKG_VERSION").into()),
        ("telemetry.sdk.language".into(), "rust".into()),
    ];
    for found in detect(resource_detectors)? {
        merge(&mut resource, found);
    }
    Ok(OpenTelemetry {
        collector,
        resource,
        sampler: optional("sampler", chosen, sampler)?,
        max_cache_size: max_cache_size.unwrap_or(WAITING_SPANS).max(1) as usize,
    })
}

/// What each of `resource_detectors` finds.
pub(in crate::discovery::decode) fn detect(
    protos: &[TypedExtensionConfig],
) -> Result<Vec<Attributes>> {
    each("resource_detectors", protos, detected)
}

/// Later ones count.
pub(in crate::discovery::decode) fn merge(resource: &mut Attributes, found: Attributes) {
    for (key, value) in found {
        match resource.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => resource.push((key, value)),
        }
    }
}

/// What a resource detector finds.
fn detected(proto: &TypedExtensionConfig) -> Result<Attributes> {
    let any = packed(proto)?;
    if let Some(EnvironmentResourceDetectorConfig {}) = unpack(any).at("typed_config")? {
        return environment(&std::env::var(ATTRIBUTES).unwrap_or_default());
    }
    if let Some(StaticConfigResourceDetectorConfig { attributes }) =
        unpack(any).at("typed_config")?
    {
        let mut found: Attributes = Vec::with_capacity(attributes.len());
        for (key, value) in &attributes {
            found.push((non_empty("typed_config.attributes", key)?.into(), value.as_str().into()));
        }
        found.sort();
        return Ok(found);
    }
    unsupported(any).at("typed_config")
}

/// `key=value,key=value`, taken as it stands, as Envoy does.
fn environment(text: &str) -> Result<Attributes> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !value.contains('=') => Ok((key.into(), value.into())),
        _ => refuse("", format!("{ATTRIBUTES} is not `key=value,key=value`: {pair:?}")),
    };
    pairs.map(pair).collect()
}

fn sampler(proto: &TypedExtensionConfig) -> Result<Sampler> {
    let any = packed(proto)?;
    if let Some(AlwaysOnSamplerConfig {}) = unpack(any).at("typed_config")? {
        return Ok(Sampler::AlwaysOn);
    }
    if let Some(ParentBasedSamplerConfig { wrapped_sampler }) = unpack(any).at("typed_config")? {
        let wrapped = required("typed_config.wrapped_sampler", &wrapped_sampler)?;
        let wrapped = sampler(wrapped).at("typed_config.wrapped_sampler")?;
        return Ok(Sampler::ParentBased(Box::new(wrapped)));
    }
    if let Some(TraceIdRatioBasedSamplerConfig { sampling_percentage }) =
        unpack(any).at("typed_config")?
    {
        let share = optional("typed_config.sampling_percentage", &sampling_percentage, fraction)?;
        return Ok(Sampler::TraceIdRatio(share.unwrap_or(Sampling::ALL.random)));
    }
    unsupported(any).at("typed_config")
}

fn zipkin(proto: &ZipkinConfig) -> Result<Zipkin> {
    let ZipkinConfig {
        collector_cluster,
        collector_endpoint,
        trace_id_128bit,
        shared_span_context,
        collector_endpoint_version,
        collector_hostname,
        trace_context_option,
        collector_service,
    } = proto;
    use CollectorEndpointVersion as Version;
    let version = "collector_endpoint_version";
    match enumeration(version, *collector_endpoint_version)? {
        Version::HttpJson => {}
        Version::HttpProto => {
            return refuse(version, "HTTP_PROTO is not supported by this version; use HTTP_JSON");
        }
        Version::DeprecatedAndUnavailableDoNotUse | Version::Grpc => {
            return refuse(version, "not supported, as in Envoy; use HTTP_JSON");
        }
    }
    let collector = match collector_service {
        Some(proto) => http_service(proto).at("collector_service")?,
        None => legacy_collector(collector_cluster, collector_endpoint, collector_hostname)?,
    };
    Ok(Zipkin {
        collector,
        trace_id_128bit: *trace_id_128bit,
        shared_span_context: shared_span_context.unwrap_or(true),
        w3c: enumeration::<TraceContextOption>("trace_context_option", *trace_context_option)?
            == TraceContextOption::UseB3WithW3cPropagation,
    })
}

/// A collector by its cluster and path.
fn legacy_collector(cluster: &str, endpoint: &str, hostname: &str) -> Result<HttpService> {
    let cluster = name("collector_cluster", cluster)?;
    let host = if hostname.is_empty() { &cluster } else { hostname };
    let path: PathAndQuery = non_empty("collector_endpoint", endpoint)?
        .parse()
        .map_err(|error| format!("is no path: {error}"))
        .at("collector_endpoint")?;
    Ok(HttpService {
        uri: HttpUri {
            host: HeaderValue::from_str(host)
                .map_err(|_| String::from("cannot stand in a header"))
                .at("collector_hostname")?,
            path: path.as_str().into(),
            cluster,
            timeout: ZIPKIN_TIMEOUT,
        },
        headers: Vec::new(),
    })
}
