//! Values as Envoy's messages have them.

use prost::{Message, Name};
use prost_types::value::Kind;
use prost_types::{Any, ListValue, Struct, Value};
use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, TransportSocket,
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
