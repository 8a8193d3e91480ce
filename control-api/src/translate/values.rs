//! Values as Envoy's messages have them.

use prost::{Message, Name};
use prost_types::value::Kind;
use prost_types::{Any, ListValue, Struct, Value};
use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Pipe, SocketAddress, TransportSocket,
};
use xds::envoy::config::listener::v3::{Filter, filter};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};

use crate::model::duration::Duration;

/// A length of time.
pub(super) fn duration(value: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

/// A message with its type.
pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Text in a struct.
pub(super) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

/// A list in a struct.
pub(super) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

/// A struct in a struct.
pub(super) fn nested(value: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(value)) }
}

/// A struct of these fields.
pub(super) fn fields<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

/// What comes over the same stream, and is waited for however long it takes.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(prost_types::Duration::default()),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
    }
}

/// An IP address and port, or the path of `unix://PATH`.
pub(super) fn address(address: &str, port: u32) -> Address {
    let kind = match address.strip_prefix("unix://") {
        Some(path) => AddressKind::Pipe(Pipe { path: path.to_owned(), ..Pipe::default() }),
        None => AddressKind::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        }),
    };
    Address { address: Some(kind) }
}

/// A transport socket of this name.
pub(super) fn transport_socket<M: Message + Name>(name: &str, message: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(message))),
    }
}

/// An HTTP filter of this name.
pub(super) fn http_filter<M: Message + Name>(name: &str, message: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(message))),
        ..HttpFilter::default()
    }
}

/// A network filter of this name.
pub(super) fn network_filter<M: Message + Name>(name: &str, message: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(message))),
    }
}

/// JSON in a struct.
pub(super) fn json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.iter().map(json).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// What is in a struct, as JSON. Whole numbers have no decimal point.
pub(super) fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::NumberValue(number)) => {
            #[expect(clippy::cast_possible_truncation, reason = "only where nothing is lost")]
            let whole = *number as i64;
            #[expect(clippy::cast_precision_loss, reason = "this is the question")]
            let is_whole = (whole as f64 - number).abs() < f64::EPSILON;
            if is_whole { Json::from(whole) } else { Json::from(*number) }
        }
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
        Some(Kind::StructValue(fields)) => {
            fields.fields.iter().map(|(key, value)| (key.clone(), to_json(value))).collect()
        }
    }
}

/// The bytes that base64 stands for.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
