//! TLS of a gateway's servers: with secrets from the control plane, from files beside the proxy, or its own of the mesh.

use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, TransportSocket,
};
use xds::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol as EnvoyTls;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, SdsSecretConfig, TlsParameters,
};

use crate::model::istio::gateway::{ServerTlsSettings, TlsMode, TlsProtocol};
use crate::translate::secrets;

/// What a server does with TLS that ends at it.
pub(super) fn socket(settings: &ServerTlsSettings) -> TransportSocket {
    let demands = matches!(settings.mode, TlsMode::Mutual | TlsMode::IstioMutual);
    let mut context = CommonTlsContext {
        alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        ..CommonTlsContext::default()
    };
    let roots;
    if settings.mode == TlsMode::IstioMutual {
        context.tls_certificate_sds_secret_configs = vec![secrets::own()];
        roots = secrets::roots();
    } else {
        context.tls_params = parameters(settings);
        let named = credentials(settings);
        if let Some(first) = named.first() {
            roots = by_stream(authorities(settings, first));
            context.tls_certificate_sds_secret_configs = named.into_iter().map(by_stream).collect();
        } else {
            let (certificate, key) = (&settings.server_certificate, &settings.private_key);
            context.tls_certificate_sds_secret_configs =
                vec![secrets::file(format!("file-cert:{certificate}~{key}"))];
            roots = secrets::file(format!("file-root:{}", settings.ca_certificates));
        }
    }
    if demands || settings.mode == TlsMode::OptionalMutual {
        context.validation_context_type = Some(secrets::named_clients(settings, roots));
    }
    secrets::server(context, demands)
}

/// The secrets that are named, as resources of the control plane.
fn credentials(settings: &ServerTlsSettings) -> Vec<String> {
    let one = std::slice::from_ref(&settings.credential_name);
    let all = &settings.credential_names;
    let named = if all.is_empty() { one } else { all.as_slice() };
    named.iter().filter(|it| !it.is_empty()).map(|it| resource(it)).collect()
}

fn resource(name: &str) -> String {
    if name.contains("://") { name.to_owned() } else { format!("kubernetes://{name}") }
}

/// The roots of clients' certificates: a secret of their own, or one beside the server's.
fn authorities(settings: &ServerTlsSettings, certificate: &str) -> String {
    match settings.ca_cert_credential_name.as_str() {
        "" => format!("{certificate}-cacert"),
        name => resource(name),
    }
}

fn by_stream(name: String) -> SdsSecretConfig {
    let source = ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    };
    SdsSecretConfig { name, sds_config: Some(source) }
}

/// None if nothing is asked for.
fn parameters(settings: &ServerTlsSettings) -> Option<TlsParameters> {
    let version = |wanted: TlsProtocol| match wanted {
        TlsProtocol::TlsAuto => EnvoyTls::TlsAuto,
        TlsProtocol::Tlsv10 => EnvoyTls::TlSv10,
        TlsProtocol::Tlsv11 => EnvoyTls::TlSv11,
        TlsProtocol::Tlsv12 => EnvoyTls::TlSv12,
        TlsProtocol::Tlsv13 => EnvoyTls::TlSv13,
    };
    let parameters = TlsParameters {
        tls_minimum_protocol_version: version(settings.min_protocol_version).into(),
        tls_maximum_protocol_version: version(settings.max_protocol_version).into(),
        cipher_suites: settings.cipher_suites.clone(),
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}
