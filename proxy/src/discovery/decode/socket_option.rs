//! Socket options.

use xds::envoy::config::core::v3::SocketOption;
use xds::envoy::config::core::v3::socket_option::{SocketState, Value};

use super::errors::{At, Result, refuse, required};
use super::value::enumeration;
use crate::net::socket::option::{self, Kind, State};

/// An option by the system's numbers.
pub(super) fn socket_option(proto: &SocketOption) -> Result<option::SocketOption> {
    let SocketOption { description: _, level, name, value, state } = proto;
    let Some(kind) = Kind::of(*level, *name) else {
        return refuse(
            "name",
            format!("option {name} of level {level} is not supported by this version"),
        );
    };
    let value = match required("value", value)? {
        Value::IntValue(value) => i32::try_from(*value)
            .map_err(|_| String::from("does not fit into 32 bits"))
            .at("int_value")?,
        Value::BufValue(_) => return refuse("buf_value", "is not supported by this version"),
    };
    let state = match enumeration("state", *state)? {
        SocketState::StatePrebind => State::Prebind,
        SocketState::StateBound => State::Bound,
        SocketState::StateListening => State::Listening,
    };
    Ok(option::SocketOption { kind, value, state })
}
