//! Where proxies get certificates from, and what TLS with them is like.

use xds::envoy::config::core::v3::api_config_source::ApiType;
use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use xds::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket,
};
use xds::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use xds::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    TlsParameters,
};
use xds::envoy::r#type::matcher::v3::StringMatcher;
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::values;
use crate::model::Mesh;
use crate::model::istio::gateway::{ServerTlsSettings, TlsMode};

/// The cluster that hands out the proxy's own secrets.
const SECRETS: &str = "sds-grpc";

/// What servers of the mesh speak with clients that offer no more.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Where secrets come from. The proxy's own are waited for however long it takes.
pub(super) fn source(wait: bool) -> ConfigSource {
    let target = EnvoyGrpc { cluster_name: SECRETS.to_owned(), ..EnvoyGrpc::default() };
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        ..GrpcService::default()
    };
    ConfigSource {
        initial_fetch_timeout: wait.then(prost_types::Duration::default),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            api_type: ApiType::Grpc.into(),
            transport_api_version: ApiVersion::V3.into(),
            grpc_services: vec![service],
            set_node_on_first_message_only: true,
        })),
    }
}

/// The proxy's own certificate.
pub(super) fn own() -> SdsSecretConfig {
    SdsSecretConfig { name: "default".to_owned(), sds_config: Some(source(true)) }
}

/// The mesh's roots.
pub(super) fn roots() -> SdsSecretConfig {
    SdsSecretConfig { name: "ROOTCA".to_owned(), sds_config: Some(source(true)) }
}

/// What is read from files beside the proxy.
pub(super) fn file(name: String) -> SdsSecretConfig {
    SdsSecretConfig { name, sds_config: Some(source(false)) }
}

/// A secret of Kubernetes, told over the same stream as all else; `end` tells the part of it that is wanted.
pub(super) fn credential(name: &str, end: &str) -> SdsSecretConfig {
    let source = ConfigSource { initial_fetch_timeout: None, ..values::ads() };
    SdsSecretConfig { name: format!("kubernetes://{name}{end}"), sds_config: Some(source) }
}

/// Which versions of TLS are spoken.
pub(super) fn versions() -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        ..CommonTlsContext::default()
    }
}

/// The mesh's mTLS, as a workload accepts it: from any identity of the mesh's trust domains.
pub(super) fn mesh_server(mesh: &Mesh) -> TransportSocket {
    let mut context = versions();
    if let Some(parameters) = &mut context.tls_params {
        let settings = mesh.config.mesh_mtls.as_ref();
        let chosen = settings.map(|it| it.cipher_suites.clone()).filter(|it| !it.is_empty());
        parameters.cipher_suites =
            chosen.unwrap_or_else(|| CIPHERS.iter().map(ToString::to_string).collect());
        if settings.is_some_and(|it| it.min_protocol_version == "TLSV1_3") {
            parameters.tls_minimum_protocol_version = TlsProtocol::TlSv13.into();
        }
    }
    let config = &mesh.config;
    let mut domains: Vec<&str> = vec![&config.trust_domain];
    for alias in &config.trust_domain_aliases {
        if !domains.contains(&alias.as_str()) {
            domains.push(alias);
        }
    }
    let of_domain = |domain: &str| MatchPattern::Prefix(format!("spiffe://{domain}/"));
    let domains = domains.into_iter().map(of_domain);
    let context = CommonTlsContext {
        alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        tls_certificate_sds_secret_configs: vec![own()],
        validation_context_type: Some(clients(domains, roots())),
        ..context
    };
    server(context, true)
}

/// TLS with certificates from files beside the proxy, as a `Sidecar` asks for it.
pub(super) fn file_server(settings: &ServerTlsSettings) -> TransportSocket {
    let demands = settings.mode == TlsMode::Mutual;
    let mut context = versions();
    context.alpn_protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    context.tls_certificate_sds_secret_configs =
        vec![file(format!("file-cert:{}~{}", settings.server_certificate, settings.private_key))];
    if demands || settings.mode == TlsMode::OptionalMutual {
        let roots = file(format!("file-root:{}", settings.ca_certificates));
        context.validation_context_type = Some(named_clients(settings, roots));
    }
    server(context, demands)
}

/// Clients with the names that a server asks for, by certificates of these roots.
pub(super) fn named_clients(
    settings: &ServerTlsSettings,
    roots: SdsSecretConfig,
) -> ValidationContextType {
    let names = settings.subject_alt_names.iter().cloned().map(MatchPattern::Exact);
    let mut own = checked(names);
    own.verify_certificate_spki.clone_from(&settings.verify_certificate_spki);
    own.verify_certificate_hash.clone_from(&settings.verify_certificate_hash);
    if settings.insecure_skip_verify == Some(true) {
        own.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
    }
    combined(own, roots)
}

/// Clients with any of these names, or any at all if there are none, by certificates of these roots.
fn clients(
    names: impl Iterator<Item = MatchPattern>,
    roots: SdsSecretConfig,
) -> ValidationContextType {
    combined(checked(names), roots)
}

fn checked(names: impl Iterator<Item = MatchPattern>) -> CertificateValidationContext {
    let matcher = |name| StringMatcher { match_pattern: Some(name), ..StringMatcher::default() };
    CertificateValidationContext {
        match_subject_alt_names: names.map(matcher).collect(),
        ..CertificateValidationContext::default()
    }
}

fn combined(own: CertificateValidationContext, roots: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(own),
        validation_context_sds_secret_config: Some(roots),
    })
}

/// A socket that ends TLS, and perhaps demands a certificate.
pub(super) fn server(context: CommonTlsContext, demands: bool) -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(context),
        require_client_certificate: Some(demands),
        ..DownstreamTlsContext::default()
    };
    values::transport_socket("envoy.transport_sockets.tls", &context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_checked_by_what_the_server_says() {
        let settings = ServerTlsSettings {
            mode: TlsMode::Mutual,
            subject_alt_names: vec!["a.com".to_owned()],
            verify_certificate_hash: vec!["ab".to_owned()],
            verify_certificate_spki: vec!["cd".to_owned()],
            insecure_skip_verify: Some(true),
            ..ServerTlsSettings::default()
        };
        let ValidationContextType::CombinedValidationContext(combined) =
            named_clients(&settings, roots())
        else {
            panic!("not combined");
        };
        let own = combined.default_validation_context.unwrap();
        assert_eq!(own.match_subject_alt_names.len(), 1);
        assert_eq!(own.verify_certificate_hash, ["ab"]);
        assert_eq!(own.verify_certificate_spki, ["cd"]);
        assert_eq!(own.trust_chain_verification(), TrustChainVerification::AcceptUntrusted);
        let plain = named_clients(&ServerTlsSettings::default(), roots());
        let ValidationContextType::CombinedValidationContext(plain) = plain else {
            panic!("not combined");
        };
        let own = plain.default_validation_context.unwrap();
        assert_eq!(own, CertificateValidationContext::default());
    }
}
