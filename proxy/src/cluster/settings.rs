//! How connections to an endpoint are made, by its cluster's configuration and its own metadata.

use std::sync::Arc;

use super::ClusterSpec;
use crate::config::HashMap;
use crate::config::address::HostAddress;
use crate::config::endpoint::Endpoint;
use crate::pool::{Settings, Tls};

/// How connections to `endpoint` are made: the first transport socket match whose criteria its metadata
/// meets decides about TLS, else the cluster does. None if TLS is configured but was not built: nothing may
/// then be sent there in plain text.
pub(super) fn settings(
    spec: &ClusterSpec,
    endpoint: &Endpoint,
    address: &HostAddress,
) -> Option<Settings> {
    Some(Settings {
        address: address.clone(),
        additional_addresses: Arc::clone(&endpoint.additional_addresses),
        hostname: Arc::clone(&endpoint.hostname),
        cluster: Arc::clone(&spec.config),
        tls: transport(spec, &endpoint.transport_socket_match)?,
    })
}

/// The TLS for connections to endpoints with this `metadata`, inside none for plain text.
pub(super) fn transport(
    spec: &ClusterSpec,
    metadata: &HashMap<String, String>,
) -> Option<Option<Tls>> {
    let mut matches = spec.config.transport_socket_matches.iter().zip(&spec.match_tls);
    let matched = matches.find(|(socket, _)| {
        socket.criteria.iter().all(|(name, value)| metadata.get(name) == Some(value))
    });
    let (config, client) = match matched {
        Some((socket, client)) => (&socket.tls, client),
        None => (&spec.config.tls, &spec.tls),
    };
    match (config, client) {
        (None, _) => Some(None),
        (Some(config), Some(client)) => {
            Some(Some(Tls { config: Arc::clone(config), client: Arc::clone(client) }))
        }
        (Some(_), None) => None,
    }
}
