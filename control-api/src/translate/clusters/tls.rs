//! TLS to endpoints: what a rule says, or else the mesh's own mTLS to those that accept it.

use prost_types::Struct;
use xds::envoy::config::cluster::v3::cluster::{DiscoveryType, TransportSocketMatch};
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::config::core::v3::proxy_protocol_config::Version;
use xds::envoy::config::core::v3::{DataSource, ProxyProtocolConfig, TransportSocket};
use xds::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, UpstreamTlsContext,
};
use xds::envoy::r#type::matcher::v3::StringMatcher;
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::{Draft, Outbound};
use crate::model::istio::destination_rule::{
    ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion, SimpleLb, TlsMode, TrafficPolicy,
};
use crate::model::istio::peer_authentication::Mode;
use crate::translate::endpoints::{self, Endpoint};
use crate::translate::proxy::Role;
use crate::translate::service::Resolution;
use crate::translate::{peer, secrets, values};

/// Sets the transport sockets. `sni` is what the mesh's own TLS asks for.
pub(super) fn apply(
    draft: &mut Draft,
    outbound: &Outbound<'_>,
    policy: Option<&TrafficPolicy>,
    endpoints: &[Endpoint],
    sni: &str,
) {
    let identities = || match outbound.service.subject_alt_names.as_slice() {
        [] => endpoints::identities(endpoints),
        names => names.to_vec(),
    };
    let Some(tls) = policy.and_then(|it| it.tls.as_ref()) else {
        let announced = policy.and_then(|it| it.proxy_protocol.as_ref());
        if let Some(version) = announced {
            draft.cluster.transport_socket = Some(announcing(version, None));
        } else if wants_mtls(outbound, policy, endpoints) {
            let mesh_tls = mesh_tls(draft, identities(), sni);
            if draft.is(DiscoveryType::OriginalDst) {
                draft.cluster.transport_socket = Some(mesh_tls);
            } else {
                draft.cluster.transport_socket_matches = where_accepted(mesh_tls);
            }
        }
        return;
    };
    let socket = match tls.mode {
        TlsMode::Disable => None,
        TlsMode::IstioMutual => {
            let sni = if tls.sni.is_empty() { sni } else { &tls.sni };
            let given = Some(tls.subject_alt_names.clone()).filter(|it| !it.is_empty());
            Some(mesh_tls(draft, given.unwrap_or_else(identities), sni))
        }
        TlsMode::Simple | TlsMode::Mutual => own_tls(draft, outbound, tls),
    };
    let announced = policy.and_then(|it| it.proxy_protocol.as_ref());
    draft.cluster.transport_socket = match announced {
        Some(version) => Some(announcing(version, socket)),
        None => socket,
    };
}

/// A socket that tells first who the client is.
fn announcing(protocol: &ProxyProtocol, socket: Option<TransportSocket>) -> TransportSocket {
    let version = match protocol.version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let plain = || values::transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {});
    let config = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig {
            version: version.into(),
            ..ProxyProtocolConfig::default()
        }),
        transport_socket: Some(socket.unwrap_or_else(plain)),
    };
    values::transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
}

/// Whether the mesh's own mTLS is tried where no rule says anything.
fn wants_mtls(
    outbound: &Outbound<'_>,
    policy: Option<&TrafficPolicy>,
    endpoints: &[Endpoint],
) -> bool {
    let service = outbound.service;
    if service.external || !outbound.mesh.config.enable_auto_mtls {
        return false;
    }
    let simple = policy.and_then(|it| it.load_balancer.as_ref()).and_then(|it| it.simple);
    let passthrough =
        service.resolution == Resolution::Passthrough || simple == Some(SimpleLb::Passthrough);
    // Nobody can tell which endpoint the client chose: all accept it, or it is not tried.
    if passthrough && (endpoints.is_empty() || endpoints.iter().any(|it| !it.mtls)) {
        return false;
    }
    peer::namespace_mode(outbound.mesh, service.namespace()) != Some(Mode::Disable)
}

/// mTLS to endpoints that say that they accept it, and plain bytes to the others.
fn where_accepted(mesh_tls: TransportSocket) -> Vec<TransportSocketMatch> {
    let plain = values::transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {});
    vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(values::fields([("tlsMode", values::text("istio"))])),
            transport_socket: Some(mesh_tls),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Struct::default()),
            transport_socket: Some(plain),
        },
    ]
}

/// TLS with the mesh's certificates.
fn mesh_tls(draft: &Draft, names: Vec<String>, sni: &str) -> TransportSocket {
    let alpn: &[&str] = if draft.is_http2() { &["istio", "h2"] } else { &["istio"] };
    let context = CommonTlsContext {
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        tls_certificate_sds_secret_configs: vec![secrets::own()],
        validation_context_type: Some(validation(names, String::new(), secrets::roots())),
        ..secrets::versions()
    };
    socket(context, sni)
}

/// TLS with certificates from files beside the proxy, or of secrets by name. None for a client certificate by name: sidecars may not read
/// secrets, unless a rule is for them alone.
fn own_tls(
    draft: &mut Draft,
    outbound: &Outbound<'_>,
    tls: &ClientTlsSettings,
) -> Option<TransportSocket> {
    if !tls.credential_name.is_empty() && outbound.proxy.role == Role::Sidecar {
        return None;
    }
    let (mut context, unchecked) = (secrets::versions(), tls.insecure_skip_verify == Some(true));
    let credential = tls.credential_name.as_str();
    if tls.mode == TlsMode::Mutual {
        context.tls_certificate_sds_secret_configs = vec![if credential.is_empty() {
            let (certificate, key) = (&tls.client_certificate, &tls.private_key);
            secrets::file(format!("file-cert:{certificate}~{key}"))
        } else {
            secrets::credential(credential, "")
        }];
    }
    let names = match tls.subject_alt_names.as_slice() {
        [] => outbound.service.subject_alt_names.clone(),
        names => names.to_vec(),
    };
    let root = if tls.ca_certificates.is_empty() { "system" } else { &tls.ca_certificates };
    context.validation_context_type = Some(if unchecked {
        ValidationContextType::ValidationContext(CertificateValidationContext::default())
    } else {
        let root = if credential.is_empty() {
            secrets::file(format!("file-root:{root}"))
        } else {
            secrets::credential(credential, "-cacert")
        };
        validation(names, tls.ca_crl.clone(), root)
    });
    if draft.is_http2() {
        context.alpn_protocols = vec!["h2".to_owned()];
    }
    if tls.sni.is_empty() {
        let options = draft.http().upstream_http_protocol_options.get_or_insert_default();
        options.auto_sni = true;
        options.auto_san_validation = tls.subject_alt_names.is_empty() && !unchecked;
    }
    Some(socket(context, &tls.sni))
}

fn validation(names: Vec<String>, crl: String, root: SdsSecretConfig) -> ValidationContextType {
    let exact = |name| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(name)),
        ..StringMatcher::default()
    };
    let crl = Some(crl).filter(|it| !it.is_empty()).map(|file| DataSource {
        specifier: Some(Specifier::Filename(file)),
        ..DataSource::default()
    });
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_subject_alt_names: names.into_iter().map(exact).collect(),
            crl,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(root),
    })
}

fn socket(context: CommonTlsContext, sni: &str) -> TransportSocket {
    let context = UpstreamTlsContext {
        common_tls_context: Some(context),
        sni: sni.to_owned(),
        ..UpstreamTlsContext::default()
    };
    values::transport_socket("envoy.transport_sockets.tls", &context)
}
