//! `/listeners`: names and bound addresses.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::AdminState;
use super::parameters::Parameters;
use super::reply::Reply;
use crate::config::address::HostAddress;

pub(super) fn answer(state: &AdminState, parameters: &Parameters) -> Reply {
    let mut listeners = state.control.listeners();
    listeners.sort();
    if parameters.get("format") == Some("json") {
        let statuses = listeners
            .iter()
            .map(|(name, at)| json!({"name": &**name, "local_address": address(at)}));
        return Reply::json(&json!({"listener_statuses": statuses.collect::<Vec<_>>()}));
    }
    let lines = listeners.iter().map(|(name, address)| format!("{name}::{address}\n"));
    Reply::text(lines.collect::<String>())
}

/// Envoy's `core.v3.Address`.
pub(super) fn address(address: &HostAddress) -> Value {
    match address {
        HostAddress::Ip(address) => socket_address(*address),
        HostAddress::Pipe(path) => json!({"pipe": {"path": &**path}}),
    }
}

/// The same of an IP address and a port.
pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
