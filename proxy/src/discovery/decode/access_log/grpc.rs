//! The access loggers that tell an `AccessLogService`, and what they have in common with others that call a service.

use std::sync::Arc;
use std::time::Duration;

use prost_types::Duration as DurationProto;
use xds::envoy::config::core::v3::ApiVersion;
use xds::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use xds::envoy::r#type::tracing::v3::CustomTag;

use crate::config::Name;
use crate::config::access_log::{
    Collector, Entry, EntryKind, Extras, LogService, Logger, ResponseHeader,
};
use crate::config::service::GrpcService;
use crate::discovery::decode::errors::{At, Result, each, refuse, required};
use crate::discovery::decode::matcher::header_ref;
use crate::discovery::decode::service::grpc_service;
use crate::discovery::decode::tracing::custom_tag;
use crate::discovery::decode::value::{enumeration, header_name, non_empty, positive_duration};

/// Envoy's defaults.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const BUFFER_SIZE: u32 = 16_384;

/// What all of them say.
pub(super) struct Common {
    pub(super) service: GrpcService,
    pub(super) batches: Batches,
    pub(super) extras: Extras,
}

/// When a batch is sent, and under which name.
pub(super) struct Batches {
    pub(super) log_name: Name,
    pub(super) flush_interval: Duration,
    pub(super) buffer_size: usize,
}

/// The logger that tells of requests.
pub(super) fn http(proto: &HttpGrpcAccessLogConfig) -> Result<Logger> {
    let HttpGrpcAccessLogConfig {
        common_config,
        additional_request_headers_to_log: request_headers,
        additional_response_headers_to_log: response_headers,
        additional_response_trailers_to_log: trailers,
    } = proto;
    let entry = Entry {
        request_headers: each("additional_request_headers_to_log", request_headers, |name| {
            Ok((name.to_ascii_lowercase().into(), header_ref(name)?))
        })?,
        response_headers: each("additional_response_headers_to_log", response_headers, |name| {
            match name.as_str() {
                ":status" => Ok(ResponseHeader::Status),
                name => Ok(ResponseHeader::Named(header_name(name)?)),
            }
        })?,
        response_trailers: each("additional_response_trailers_to_log", trailers, |name| {
            header_name(name)
        })?,
        extras: Extras::default(),
    };
    logger(common_config.as_ref(), EntryKind::Http, entry)
}

/// The logger that tells of connections.
pub(super) fn tcp(proto: &TcpGrpcAccessLogConfig) -> Result<Logger> {
    let TcpGrpcAccessLogConfig { common_config } = proto;
    logger(common_config.as_ref(), EntryKind::Tcp, Entry::default())
}

fn logger(
    proto: Option<&CommonGrpcAccessLogConfig>,
    kind: EntryKind,
    entry: Entry,
) -> Result<Logger> {
    let Some(proto) = proto else { return refuse("common_config", "required") };
    let Common { service, batches, extras } = common(proto).at("common_config")?;
    let service = LogService::AccessLog(service, kind);
    Ok(Logger::Grpc { collector: Arc::new(batches.of(service)), entry: Entry { extras, ..entry } })
}

/// What all loggers say that call a gRPC service.
pub(super) fn common(proto: &CommonGrpcAccessLogConfig) -> Result<Common> {
    let CommonGrpcAccessLogConfig {
        log_name,
        grpc_service: service,
        transport_api_version: version,
        buffer_flush_interval,
        buffer_size_bytes,
        filter_state_objects_to_log: objects,
        grpc_stream_retry_policy: _,
        custom_tags,
    } = proto;
    if enumeration::<ApiVersion>("transport_api_version", *version)? != ApiVersion::V3 {
        return refuse("transport_api_version", "must be V3");
    }
    let log_name = non_empty("log_name", log_name)?;
    Ok(Common {
        service: grpc_service(required("grpc_service", service)?).at("grpc_service")?,
        batches: batches(log_name, buffer_flush_interval.as_ref(), *buffer_size_bytes)?,
        extras: extras(objects, custom_tags)?,
    })
}

/// When a batch is sent.
pub(super) fn batches(
    log_name: &str,
    interval: Option<&DurationProto>,
    size: Option<u32>,
) -> Result<Batches> {
    let interval = positive_duration("buffer_flush_interval", interval)?;
    Ok(Batches {
        log_name: log_name.into(),
        flush_interval: interval.unwrap_or(FLUSH_INTERVAL),
        buffer_size: size.unwrap_or(BUFFER_SIZE) as usize,
    })
}

/// What a record says beside its format.
pub(super) fn extras(filter_state: &[String], custom_tags: &[CustomTag]) -> Result<Extras> {
    Ok(Extras {
        filter_state: filter_state.iter().map(|key| key.as_str().into()).collect(),
        custom_tags: each("custom_tags", custom_tags, custom_tag)?,
    })
}

impl Batches {
    /// The collector that they go to.
    pub(super) fn of(self, service: LogService) -> Collector {
        let Self { log_name, flush_interval, buffer_size } = self;
        Collector { service, log_name, flush_interval, buffer_size }
    }
}
