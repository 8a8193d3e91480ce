//! Access logs: where lines go, and what they say.

mod filter;
mod grpc;
mod open_telemetry;

use std::path::PathBuf;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use xds::envoy::config::accesslog::v3::AccessLog;
use xds::envoy::config::accesslog::v3::access_log::ConfigType;
use xds::envoy::config::core::v3::SubstitutionFormatString;
use xds::envoy::config::core::v3::substitution_format_string::Format as FormatKind;
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use xds::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat as FileFormat;
use xds::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::source::contents;
use super::value::non_empty;
use crate::config::access_log::{self, JsonFormat, LogFormat, LogSink, Logger};
use crate::config::format::Format;

/// Envoy's format for logs that do not say their own.
const DEFAULT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
);

/// An access log.
pub(super) fn access_log(proto: &AccessLog) -> Result<access_log::AccessLog> {
    let AccessLog { name: _, filter, config_type } = proto;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    let logger = logger(any).at("typed_config")?;
    Ok(access_log::AccessLog { logger, filter: optional("filter", filter, filter::log_filter)? })
}

/// A log in the file at `path`, with Envoy's own format.
pub(super) fn default_file(path: &str) -> Result<access_log::AccessLog> {
    let sink = LogSink::File(PathBuf::from(path));
    let logger = Logger::Lines { sink, format: log_format(None)? };
    Ok(access_log::AccessLog { logger, filter: None })
}

fn logger(any: &prost_types::Any) -> Result<Logger> {
    if let Some(FileAccessLog { path, access_log_format }) = unpack(any)? {
        let sink = LogSink::File(PathBuf::from(non_empty("path", &path)?));
        return Ok(Logger::Lines { sink, format: file_format(access_log_format.as_ref())? });
    }
    if let Some(StdoutAccessLog { access_log_format: format }) = unpack(any)? {
        let format = format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        return Ok(Logger::Lines { sink: LogSink::Stdout, format: log_format(format.as_ref())? });
    }
    if let Some(StderrAccessLog { access_log_format: format }) = unpack(any)? {
        let format = format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        return Ok(Logger::Lines { sink: LogSink::Stderr, format: log_format(format.as_ref())? });
    }
    if let Some(proto) = unpack(any)? {
        return open_telemetry::logger(&proto);
    }
    if let Some(proto) = unpack(any)? {
        return grpc::http(&proto);
    }
    if let Some(proto) = unpack(any)? {
        return grpc::tcp(&proto);
    }
    unsupported(any)
}

fn file_format(proto: Option<&FileFormat>) -> Result<LogFormat> {
    match proto {
        // An empty format is the default one, as in Envoy.
        Some(FileFormat::Format(line)) if !line.is_empty() => text(line, false).at("format"),
        Some(FileFormat::TypedJsonFormat(object)) => json(object, false).at("typed_json_format"),
        Some(FileFormat::LogFormat(proto)) => log_format(Some(proto)),
        Some(FileFormat::Format(_)) | None => log_format(None),
    }
}

fn log_format(proto: Option<&SubstitutionFormatString>) -> Result<LogFormat> {
    match proto {
        Some(proto) => substitution_format(proto).at("log_format"),
        None => text(DEFAULT_FORMAT, false),
    }
}

/// A format of a text or of JSON.
pub(super) fn substitution_format(proto: &SubstitutionFormatString) -> Result<LogFormat> {
    let SubstitutionFormatString {
        omit_empty_values: omit_empty,
        content_type: _,
        json_format_options: _,
        format,
    } = proto;
    match format {
        Some(FormatKind::TextFormat(line)) => text(line, *omit_empty).at("text_format"),
        Some(FormatKind::TextFormatSource(source)) => {
            let line = String::from_utf8(contents(source).at("text_format_source")?)
                .map_err(|_| String::from("is not UTF-8"))
                .at("text_format_source")?;
            text(&line, *omit_empty).at("text_format_source")
        }
        Some(FormatKind::JsonFormat(object)) => json(object, *omit_empty).at("json_format"),
        None => refuse("", "required: text_format_source or json_format"),
    }
}

fn text(line: &str, omit_empty: bool) -> Result<LogFormat> {
    Ok(LogFormat::Text { line: Format::parse(line).at("")?, omit_empty })
}

fn json(proto: &Struct, omit_empty: bool) -> Result<LogFormat> {
    Ok(LogFormat::Json { object: json_object(proto)?, omit_empty })
}

/// The members come in the order of their names, as Envoy writes them.
fn json_object(proto: &Struct) -> Result<JsonFormat> {
    let Struct { fields } = proto;
    let members = fields.iter().map(|(key, value)| {
        Ok((key.as_str().into(), json_value(value).at(&format!("[{key:?}]"))?))
    });
    Ok(JsonFormat::Object(members.collect::<Result<_>>()?))
}

fn json_value(proto: &Value) -> Result<JsonFormat> {
    let Value { kind } = proto;
    Ok(match kind {
        Some(Kind::StringValue(text)) => JsonFormat::Text(Format::parse(text).at("")?),
        Some(Kind::StructValue(object)) => json_object(object)?,
        Some(Kind::ListValue(ListValue { values })) => {
            JsonFormat::List(each("", values, json_value)?)
        }
        Some(Kind::BoolValue(value)) => JsonFormat::Constant((*value).into()),
        Some(Kind::NumberValue(number)) => JsonFormat::Constant(json_number(*number)),
        Some(Kind::NullValue(_)) | None => JsonFormat::Constant(serde_json::Value::Null),
    })
}

/// Whole numbers are written without a fraction.
fn json_number(number: f64) -> serde_json::Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked by converting back")]
    let whole = number as i64;
    if whole as f64 == number { whole.into() } else { number.into() }
}
