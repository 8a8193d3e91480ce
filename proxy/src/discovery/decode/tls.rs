//! TLS contexts and secrets.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xds::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use xds::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use xds::envoy::extensions::transport_sockets::tls::v3::secret::Type as SecretType;
use xds::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use xds::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
    SubjectAltNameMatcher, TlsCertificate, TlsKeyLog, TlsParameters, UpstreamTlsContext,
};
use xds::envoy::r#type::matcher::v3::StringMatcher;

use super::errors::{At, Result, each, optional, refuse, required};
use super::istio::METADATA_EXCHANGE;
use super::matcher::string_matcher;
use super::source::{config_source, data_source};
use super::value::{enumeration, name, non_empty, optional_duration, unless_empty};
use crate::config::source::ResourceSource;
use crate::config::tls::{
    self, CommonTls, DownstreamTls, SanKind, SanMatcher, SecretKind, SecretName, SecretRef,
    TlsVersion, UpstreamTls, ValidationContext, ValidationSource,
};

/// TLS towards clients.
pub(super) fn downstream(proto: &DownstreamTlsContext) -> Result<DownstreamTls> {
    let DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        session_timeout,
        full_scan_certs_on_sni_mismatch: _,
        session_ticket_keys_type,
    } = proto;
    let common = common(common_tls_context.as_ref()).at("common_tls_context")?;
    if common.certificates.is_empty() {
        return refuse("common_tls_context", "No TLS certificates found for server context");
    }
    Ok(DownstreamTls {
        common,
        require_client_certificate: require_client_certificate.unwrap_or(false),
        disable_tickets: matches!(
            session_ticket_keys_type,
            Some(SessionTicketKeysType::DisableStatelessSessionResumption(true))
        ),
        session_timeout: optional_duration("session_timeout", session_timeout.as_ref())?,
    })
}

/// TLS towards endpoints.
pub(super) fn upstream(proto: &UpstreamTlsContext) -> Result<UpstreamTls> {
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        max_session_keys: _,
    } = proto;
    let common = common(common_tls_context.as_ref()).at("common_tls_context")?;
    if common.certificates.len() > 1 {
        let reason = "Multiple TLS certificates are not supported for client contexts";
        return refuse("common_tls_context", reason);
    }
    if *auto_sni_san_validation && common.validation.is_none() {
        let reason = "needs a validation context: without trusted roots nothing is verified";
        return refuse("auto_sni_san_validation", reason);
    }
    if sni.len() > 255 {
        return refuse("sni", "must be at most 255 bytes");
    }
    Ok(UpstreamTls {
        common,
        sni: unless_empty(sni),
        auto_host_sni: *auto_host_sni,
        auto_sni_san_validation: *auto_sni_san_validation,
    })
}

fn common(proto: Option<&CommonTlsContext>) -> Result<CommonTls> {
    let absent = CommonTlsContext::default();
    let CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs: discovered,
        alpn_protocols,
        key_log,
        validation_context_type,
    } = proto.unwrap_or(&absent);
    if !tls_certificates.is_empty() && !discovered.is_empty() {
        return refuse(
            "tls_certificate_sds_secret_configs",
            "cannot be set together with tls_certificates",
        );
    }
    let mut certificates = each("tls_certificates", tls_certificates, |proto| {
        certificate(proto).map(SecretRef::Inline)
    })?;
    certificates.extend(each("tls_certificate_sds_secret_configs", discovered, |proto| {
        secret_name(proto).map(SecretRef::Sds)
    })?);
    let (min_version, max_version, cipher_suites) =
        parameters(tls_params.as_ref()).at("tls_params")?;
    let mut alpn: Vec<Box<str>> =
        each("alpn_protocols", alpn_protocols, |protocol| Ok(non_empty("", protocol)?.into()))?;
    alpn.retain(|protocol| **protocol != *METADATA_EXCHANGE);
    Ok(CommonTls {
        min_version,
        max_version,
        cipher_suites,
        alpn,
        certificates,
        validation: validation_context_type.as_ref().map(validation_source).transpose()?,
        key_log: optional("key_log", key_log, |TlsKeyLog { path }| {
            non_empty("path", path).map(PathBuf::from)
        })?,
    })
}

type Parameters = (TlsVersion, TlsVersion, Vec<Box<str>>);

fn parameters(proto: Option<&TlsParameters>) -> Result<Parameters> {
    let absent = TlsParameters::default();
    let TlsParameters { tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites } =
        proto.unwrap_or(&absent);
    let min = match enumeration("tls_minimum_protocol_version", *tls_minimum_protocol_version)? {
        TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv12 | TlsProtocol::TlsAuto => TlsVersion::V1_2,
        old @ (TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            tracing::warn!(configured = old.as_str_name(), "TLS 1.2 is the oldest version spoken");
            TlsVersion::V1_2
        }
    };
    let max = match enumeration("tls_maximum_protocol_version", *tls_maximum_protocol_version)? {
        TlsProtocol::TlSv13 | TlsProtocol::TlsAuto => TlsVersion::V1_3,
        TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            return refuse("tls_maximum_protocol_version", "TLS 1.2 is the oldest version spoken");
        }
    };
    if min > max {
        return refuse("tls_maximum_protocol_version", "is older than the minimum");
    }
    Ok((min, max, cipher_suites.iter().map(|suite| suite.as_str().into()).collect()))
}

fn certificate(proto: &TlsCertificate) -> Result<tls::TlsCertificate> {
    let TlsCertificate { certificate_chain, private_key, watched_directory: _ } = proto;
    let chain = required("certificate_chain", certificate_chain)?;
    let key = required("private_key", private_key)?;
    Ok(tls::TlsCertificate {
        chain: data_source(chain).at("certificate_chain")?,
        key: data_source(key).at("private_key")?,
    })
}

fn secret_name(proto: &SdsSecretConfig) -> Result<SecretName> {
    let SdsSecretConfig { name: secret, sds_config } = proto;
    let name = name("name", secret)?;
    Ok(match optional("sds_config", sds_config, config_source)? {
        Some(source) => SecretName::Discovered(ResourceSource { name, source }),
        None => SecretName::Static(name),
    })
}

fn validation_source(proto: &ValidationContextType) -> Result<ValidationSource> {
    Ok(match proto {
        ValidationContextType::ValidationContext(proto) => {
            let context = validation_context(proto).at("validation_context")?;
            san_needs_roots(&context).at("validation_context")?;
            ValidationSource::Single(SecretRef::Inline(context))
        }
        ValidationContextType::ValidationContextSdsSecretConfig(proto) => {
            let name = secret_name(proto).at("validation_context_sds_secret_config")?;
            ValidationSource::Single(SecretRef::Sds(name))
        }
        ValidationContextType::CombinedValidationContext(proto) => {
            combined(proto).at("combined_validation_context")?
        }
    })
}

fn combined(proto: &CombinedCertificateValidationContext) -> Result<ValidationSource> {
    let CombinedCertificateValidationContext {
        default_validation_context: default,
        validation_context_sds_secret_config: sds,
    } = proto;
    let default = required("default_validation_context", default)?;
    let sds = required("validation_context_sds_secret_config", sds)?;
    Ok(ValidationSource::Combined {
        default: Box::new(validation_context(default).at("default_validation_context")?),
        sds: secret_name(sds).at("validation_context_sds_secret_config")?,
    })
}

fn san_needs_roots(context: &ValidationContext) -> Result<()> {
    if context.san.is_empty() || context.trusted_ca.is_some() {
        return Ok(());
    }
    let reason = "SAN-based verification of peer certificates without trusted CA is insecure and not allowed";
    refuse("match_typed_subject_alt_names", reason)
}

fn validation_context(proto: &CertificateValidationContext) -> Result<ValidationContext> {
    let CertificateValidationContext {
        trusted_ca,
        watched_directory: _,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
    } = proto;
    let mut san = each("match_typed_subject_alt_names", match_typed_subject_alt_names, san)?;
    let untyped = each("match_subject_alt_names", match_subject_alt_names, any_kind_of_san)?;
    san.extend(untyped.into_iter().flatten());
    let mode = enumeration("trust_chain_verification", *trust_chain_verification)?;
    Ok(ValidationContext {
        trusted_ca: optional("trusted_ca", trusted_ca, data_source)?,
        crl: optional("crl", crl, data_source)?,
        san,
        certificate_hashes: each("verify_certificate_hash", verify_certificate_hash, |hash| {
            hex_hash(hash)
        })?,
        spki_hashes: each("verify_certificate_spki", verify_certificate_spki, |hash| {
            base64_hash(hash)
        })?,
        allow_expired: *allow_expired_certificate,
        accept_untrusted: match mode {
            TrustChainVerification::VerifyTrustChain => false,
            TrustChainVerification::AcceptUntrusted => true,
        },
    })
}

/// A matcher of names of one kind.
pub(super) fn san(proto: &SubjectAltNameMatcher) -> Result<SanMatcher> {
    let SubjectAltNameMatcher { san_type, matcher } = proto;
    let kind = match enumeration("san_type", *san_type)? {
        SanType::Uri => SanKind::Uri,
        SanType::Dns => SanKind::Dns,
        SanType::Email => SanKind::Email,
        SanType::IpAddress => SanKind::Ip,
        SanType::Unspecified => return refuse("san_type", "required"),
        SanType::OtherName => return refuse("san_type", "OTHER_NAME is not supported"),
    };
    let matcher = string_matcher(required("matcher", matcher)?).at("matcher")?;
    Ok(SanMatcher { kind, matcher })
}

/// The deprecated matchers do not say a kind: any will do.
fn any_kind_of_san(proto: &StringMatcher) -> Result<[SanMatcher; 4]> {
    let matcher = string_matcher(proto)?;
    let of = |kind| SanMatcher { kind, matcher: matcher.clone() };
    Ok([SanKind::Uri, SanKind::Dns, SanKind::Email, SanKind::Ip].map(of))
}

/// A SHA-256 in hexadecimal, with or without colons between the bytes.
fn hex_hash(text: &str) -> Result<[u8; 32]> {
    let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = text.chars().filter(|c| *c != ':').map(digit).collect();
    let bytes = digits.map(|digits| -> Vec<u8> {
        digits.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect()
    });
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(hash) if matches!(text.len(), 64 | 95) => Ok(hash),
        _ => refuse("", "is no SHA-256 in hexadecimal"),
    }
}

/// A SHA-256 in base64.
fn base64_hash(text: &str) -> Result<[u8; 32]> {
    let bytes = STANDARD.decode(text).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| String::from("is no SHA-256 in base64"))
        .at("")
}

/// A secret.
pub(super) fn secret(proto: &Secret) -> Result<tls::Secret> {
    let Secret { name: secret, r#type } = proto;
    let kind = match r#type {
        Some(SecretType::TlsCertificate(proto)) => {
            SecretKind::Certificate(certificate(proto).at("tls_certificate")?)
        }
        Some(SecretType::ValidationContext(proto)) => {
            SecretKind::Validation(validation_context(proto).at("validation_context")?)
        }
        None => return refuse("", "required: tls_certificate or validation_context"),
    };
    Ok(tls::Secret { name: name("name", secret)?, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_in_hexadecimal_and_base64() {
        assert_eq!(hex_hash(&"0a".repeat(32)).unwrap(), [10; 32]);
        assert_eq!(hex_hash(&["0A"; 32].join(":")).unwrap(), [10; 32]);
        assert!(hex_hash(&"0a".repeat(31)).is_err());
        assert!(hex_hash(&"zz".repeat(32)).is_err());
        assert!(hex_hash(&"+a".repeat(32)).is_err());
        assert_eq!(base64_hash(&STANDARD.encode([7; 32])).unwrap(), [7; 32]);
        assert!(base64_hash(&STANDARD.encode([7; 31])).is_err());
    }
}
