//! What the settings of the mesh and of a proxy say of every connection manager: paths, headers, and what stands before
//! a gateway.

use xds::envoy::config::listener::v3::ListenerFilter;
use xds::envoy::extensions::filters::http::router::v3::Router;
use xds::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, ServerHeaderTransformation,
    SetCurrentClientCertDetails,
};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};

use super::listeners::inspector;
use super::telemetry::Class;
use super::values;
use crate::model::Mesh;
use crate::model::istio::mesh_config::{DefaultConfig, Normalization};
use crate::model::istio::proxy_headers::{
    ForwardClientCertDetails as Forwarded, GatewayTopology, ProxyHeaders,
};

/// Sets what the settings say.
pub(super) fn apply(
    manager: &mut HttpConnectionManager,
    mesh: &Mesh,
    settings: &DefaultConfig,
    class: Class,
) {
    paths(manager, mesh.config.path_normalization.normalization);
    let none = ProxyHeaders::default();
    let headers = settings.proxy_headers.as_ref().unwrap_or(&none);
    if headers.server.disabled {
        manager.server_name.clear();
        manager.server_header_transformation = ServerHeaderTransformation::PassThrough.into();
    } else if !headers.server.value.is_empty() {
        manager.server_name.clone_from(&headers.server.value);
    }
    if headers.request_id.disabled {
        manager.generate_request_id = Some(false);
    }
    manager.append_x_forwarded_port = headers.x_forwarded_port.enabled;
    match class {
        Class::Inbound => client_certificate(manager, headers),
        Class::Gateway => topology(manager, settings.gateway_topology.as_ref()),
        Class::Outbound => {}
    }
}

/// The last of all HTTP filters.
pub(super) fn router(settings: &DefaultConfig) -> HttpFilter {
    let headers = settings.proxy_headers.as_ref();
    let suppress_envoy_headers = headers.is_some_and(|it| it.envoy_debug_headers.disabled);
    let router = Router { suppress_envoy_headers, ..Router::default() };
    values::http_filter("envoy.filters.http.router", &router)
}

/// Whether requests say how often they were tried.
pub(super) fn counts_attempts(settings: &DefaultConfig) -> bool {
    !settings.proxy_headers.as_ref().is_some_and(|it| it.attempt_count.disabled)
}

/// Whether requests whose host is rewritten say what it was.
pub(super) fn tells_host(settings: &DefaultConfig) -> bool {
    settings.proxy_headers.as_ref().is_some_and(|it| it.x_forwarded_host.enabled)
}

/// What reads the PROXY header that stands at the beginning of a gateway's connections.
pub(super) fn proxy_protocol(settings: &DefaultConfig) -> Option<ListenerFilter> {
    settings.gateway_topology.as_ref()?.proxy_protocol.as_ref()?;
    Some(inspector("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default()))
}

fn paths(manager: &mut HttpConnectionManager, normalization: Normalization) {
    let unescapes = normalization == Normalization::DecodeAndMergeSlashes;
    manager.normalize_path = Some(normalization != Normalization::None);
    manager.merge_slashes = unescapes || normalization == Normalization::MergeSlashes;
    manager.path_with_escaped_slashes_action = if unescapes {
        PathWithEscapedSlashesAction::UnescapeAndForward
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    }
    .into();
}

/// Who the client of a workload is, as far as the workload is told.
fn client_certificate(manager: &mut HttpConnectionManager, headers: &ProxyHeaders) {
    let forwarded = envoys(headers.forwarded_client_cert);
    let own = headers.set_current_client_cert_details.unwrap_or_default();
    manager.forward_client_cert_details =
        forwarded.unwrap_or(ForwardClientCertDetails::AppendForward).into();
    manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
        subject: Some(own.subject.unwrap_or(true)),
        cert: own.cert.unwrap_or(false),
        chain: own.chain.unwrap_or(false),
        dns: own.dns.unwrap_or(true),
        uri: own.uri.unwrap_or(true),
    });
}

/// Who a gateway's clients are is told to services; what they say of it themselves is believed only where it is said so.
fn topology(manager: &mut HttpConnectionManager, topology: Option<&GatewayTopology>) {
    let none = GatewayTopology::default();
    let topology = topology.unwrap_or(&none);
    manager.xff_num_trusted_hops = topology.num_trusted_proxies;
    let forwarded = envoys(topology.forward_client_cert_details)
        .unwrap_or(ForwardClientCertDetails::SanitizeSet);
    manager.forward_client_cert_details = forwarded.into();
    let sets = matches!(
        forwarded,
        ForwardClientCertDetails::AppendForward | ForwardClientCertDetails::SanitizeSet
    );
    manager.set_current_client_cert_details = sets.then(|| SetCurrentClientCertDetails {
        subject: Some(true),
        cert: true,
        dns: true,
        uri: true,
        ..SetCurrentClientCertDetails::default()
    });
}

fn envoys(forwarded: Forwarded) -> Option<ForwardClientCertDetails> {
    Some(match forwarded {
        Forwarded::Undefined => return None,
        Forwarded::Sanitize => ForwardClientCertDetails::Sanitize,
        Forwarded::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        Forwarded::AppendForward => ForwardClientCertDetails::AppendForward,
        Forwarded::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        Forwarded::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn managed(settings: serde_json::Value, class: Class) -> HttpConnectionManager {
        let settings: DefaultConfig = serde_json::from_value(settings).unwrap();
        let mut manager = HttpConnectionManager {
            server_name: "istio-envoy".to_owned(),
            ..HttpConnectionManager::default()
        };
        apply(&mut manager, &Mesh::default(), &settings, class);
        manager
    }

    #[test]
    fn settings_that_say_nothing_change_nothing_but_what_istio_always_sets() {
        let manager = managed(json!({}), Class::Gateway);
        assert_eq!(manager.server_name, "istio-envoy");
        assert_eq!(manager.forward_client_cert_details(), ForwardClientCertDetails::SanitizeSet);
        assert_eq!(manager.normalize_path, Some(true));
        let manager = managed(json!({}), Class::Outbound);
        assert_eq!(manager.set_current_client_cert_details, None);
    }

    #[test]
    fn a_gateway_is_told_what_stands_before_it() {
        let forwards = json!({"gatewayTopology": {
            "numTrustedProxies": 2, "forwardClientCertDetails": "ALWAYS_FORWARD_ONLY"}});
        let manager = managed(forwards.clone(), Class::Gateway);
        assert_eq!(manager.xff_num_trusted_hops, 2);
        assert_eq!(
            manager.forward_client_cert_details(),
            ForwardClientCertDetails::AlwaysForwardOnly
        );
        assert_eq!(manager.set_current_client_cert_details, None);
        assert_eq!(managed(forwards, Class::Outbound).xff_num_trusted_hops, 0);
    }

    #[test]
    fn a_workload_is_told_of_its_clients_what_the_settings_say() {
        let manager = managed(
            json!({"proxyHeaders": {
                "forwardedClientCert": "SANITIZE", "server": {"disabled": true},
                "requestId": {"disabled": true}, "xForwardedPort": {"enabled": true},
                "setCurrentClientCertDetails": {"cert": true, "dns": false}}}),
            Class::Inbound,
        );
        assert_eq!(manager.forward_client_cert_details(), ForwardClientCertDetails::Sanitize);
        let details = manager.set_current_client_cert_details.unwrap();
        assert_eq!((details.cert, details.dns, details.uri), (true, false, true));
        assert_eq!(manager.server_name, "");
        assert_eq!(manager.generate_request_id, Some(false));
        assert!(manager.append_x_forwarded_port);
    }
}
