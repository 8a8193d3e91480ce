//! Socket options.

use xds::envoy::config::core::v3::socket_option::{SocketState, Value};
use xds::envoy::config::core::v3::{SocketOption, TcpKeepalive};

use super::errors::{At, Result, refuse, required};
use super::value::enumeration;
use crate::net::socket::option::{self, Kind, State};

/// What `tcp_keepalive` of a listener comes to; accepted connections inherit it. A value of 0 turns it off.
pub(super) fn keepalive_options(proto: Option<&TcpKeepalive>) -> Result<Vec<option::SocketOption>> {
    let Some(TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval }) = proto else {
        return Ok(Vec::new());
    };
    let (name, state) = (<Box<[u8]>>::default(), State::Prebind);
    let set = |kind, value| option::SocketOption { kind, value, name: name.clone(), state };
    let values = [
        (Kind::TcpKeepCnt, "keepalive_probes", keepalive_probes),
        (Kind::TcpKeepIdle, "keepalive_time", keepalive_time),
        (Kind::TcpKeepIntvl, "keepalive_interval", keepalive_interval),
    ];
    if values.iter().any(|(_, _, value)| **value == Some(0)) {
        return Ok(vec![set(Kind::SoKeepAlive, 0)]);
    }
    let mut options = vec![set(Kind::SoKeepAlive, 1)];
    for (kind, field, value) in values {
        let Some(value) = value else { continue };
        match i32::try_from(*value) {
            Ok(value) => options.push(set(kind, value)),
            Err(_) => return refuse(field, "is too large").at("tcp_keepalive"),
        }
    }
    Ok(options)
}

/// An option by the system's numbers.
pub(super) fn socket_option(proto: &SocketOption) -> Result<option::SocketOption> {
    let SocketOption { description: _, level, name: number, value, state } = proto;
    let Some(kind) = Kind::of(*level, *number) else {
        return refuse(
            "name",
            format!("option {number} of level {level} is not supported by this version"),
        );
    };
    let (value, name) = match (required("value", value)?, kind.is_named()) {
        (Value::IntValue(value), false) => (int(*value).at("int_value")?, Box::default()),
        (Value::BufValue(bytes), true) => (0, bytes.as_slice().into()),
        (Value::BufValue(bytes), false) => match bytes.as_slice().try_into() {
            Ok(bytes) => (i32::from_ne_bytes(bytes), Box::default()),
            Err(_) => return refuse("buf_value", "this option is a number of four bytes"),
        },
        (Value::IntValue(_), true) => {
            return refuse("int_value", "this option is a name, and goes into buf_value");
        }
    };
    let state = match enumeration("state", *state)? {
        SocketState::StatePrebind => State::Prebind,
        SocketState::StateBound => State::Bound,
        SocketState::StateListening => State::Listening,
    };
    Ok(option::SocketOption { kind, value, name, state })
}

fn int(value: i64) -> Result<i32> {
    i32::try_from(value).map_err(|_| String::from("does not fit into 32 bits")).at("")
}
