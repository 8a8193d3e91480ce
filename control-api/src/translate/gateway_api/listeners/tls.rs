//! TLS of a listener: which certificates it serves with, as far as they are there and may be had, and whether clients show
//! one.

use std::sync::Arc;

use super::{granted, unmet};
use crate::model::Mesh;
use crate::model::gateway_api::gateway::{
    FrontendTlsConfig, FrontendValidation, FrontendValidationMode, Gateway, Listener, TlsMode,
};
use crate::model::gateway_api::reference::SecretObjectReference;
use crate::model::istio::gateway::{ServerTlsSettings, TlsMode as Mode};
use crate::model::kind::Kind;
use crate::model::object::Object;

/// The option that asks for certificates of clients.
const TERMINATE_MODE: &str = "gateway.istio.io/tls-terminate-mode";
/// The option that names ciphers.
const CIPHERS: &str = "gateway.istio.io/tls-cipher-suites";
/// How many certificates a server has at most: one for each kind of key.
const MOST: usize = 2;

/// The field, the condition that does not hold, and why.
type Refused = (String, &'static str, String);

/// None for a listener without TLS.
pub(super) fn settings(
    mesh: &Mesh,
    gateway: &Gateway,
    object: &Arc<Object>,
    listener: &Listener,
) -> Result<Option<ServerTlsSettings>, Refused> {
    let Some(tls) = &listener.tls else {
        if matches!(listener.protocol.as_str(), "HTTPS" | "TLS") {
            let why = format!("{} needs tls", listener.protocol);
            return Err(("tls".to_owned(), unmet::INVALID_CERTIFICATE, why));
        }
        return Ok(None);
    };
    let mut out = ServerTlsSettings::default();
    if tls.mode == TlsMode::Passthrough {
        out.mode = Mode::Passthrough;
        return Ok(Some(out));
    }
    let option = |name: &str| tls.options.get(name).map_or("", String::as_str);
    out.mode = match option(TERMINATE_MODE) {
        "MUTUAL" => Mode::Mutual,
        "OPTIONAL_MUTUAL" => Mode::OptionalMutual,
        "ISTIO_MUTUAL" => Mode::IstioMutual,
        _ => Mode::Simple,
    };
    let ciphers = option(CIPHERS).split(',').map(str::trim).filter(|it| !it.is_empty());
    out.cipher_suites = ciphers.map(ToOwned::to_owned).collect();
    if out.mode == Mode::IstioMutual {
        return Ok(Some(out));
    }
    if tls.certificate_refs.len() > MOST {
        let why = format!("a server has at most {MOST} certificates");
        return Err(("tls.certificateRefs".to_owned(), unmet::INVALID_CERTIFICATE, why));
    }
    let mut named = Vec::new();
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        let name = certificate(mesh, object, reference).map_err(|(condition, why)| {
            (format!("tls.certificateRefs[{index}]"), condition, why)
        })?;
        named.push(name);
    }
    match <[String; 1]>::try_from(named) {
        Ok([only]) => out.credential_name = only,
        Err(several) if several.is_empty() => {
            let why = "there is no certificate".to_owned();
            return Err(("tls.certificateRefs".to_owned(), unmet::INVALID_CERTIFICATE, why));
        }
        Err(several) => out.credential_names = several,
    }
    if let Some(validation) = validation(gateway, listener.port) {
        clients(mesh, object, validation, &mut out)?;
    }
    Ok(Some(out))
}

/// The name by which proxies ask for a certificate.
fn certificate(
    mesh: &Mesh,
    object: &Arc<Object>,
    reference: &SecretObjectReference,
) -> Result<String, (&'static str, String)> {
    let SecretObjectReference { group, kind, namespace, name } = reference;
    let own = object.metadata.namespace.as_str();
    let namespace = namespace.as_deref().unwrap_or(own);
    if !group.is_empty() || kind != "Secret" {
        let why = format!("only Secrets are certificates, not {kind} of {group:?}");
        return Err((unmet::INVALID_CERTIFICATE, why));
    }
    let from = (object.type_meta.kind.as_str(), own);
    if namespace != own && !granted(mesh, from, ("", "Secret", namespace, name)) {
        let why = format!("no ReferenceGrant in {namespace} allows the use of Secret {name}");
        return Err((unmet::NOT_PERMITTED, why));
    }
    if mesh.get(Kind::Secret, namespace, name).is_none() {
        let why = format!("there is no Secret {namespace}/{name}");
        return Err((unmet::INVALID_CERTIFICATE, why));
    }
    Ok(format!("kubernetes-gateway://{namespace}/{name}"))
}

/// What the gateway says of clients at a port.
fn validation(gateway: &Gateway, port: u32) -> Option<&FrontendValidation> {
    let frontend = gateway.tls.as_ref()?.frontend.as_ref()?;
    let own = frontend.per_port.iter().find(|it| it.port == port).map(|it| &it.tls);
    let config: &FrontendTlsConfig = own.unwrap_or(&frontend.default);
    config.validation.as_ref()
}

/// Clients show certificates, which these secrets verify. Without what they are verified against nobody is served.
fn clients(
    mesh: &Mesh,
    object: &Arc<Object>,
    validation: &FrontendValidation,
    out: &mut ServerTlsSettings,
) -> Result<(), Refused> {
    let path = "tls".to_owned();
    let [reference] = validation.ca_certificate_refs.as_slice() else {
        let why = "clients are verified against one caCertificateRef".to_owned();
        return Err((path, unmet::INVALID_CERTIFICATE, why));
    };
    let own = object.metadata.namespace.as_str();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let name = reference.name.as_str();
    if !reference.group.is_empty() || reference.kind != "Secret" {
        let why = format!(
            "certificates of authorities are told out of Secrets, not {}: put them into one as ca.crt",
            reference.kind
        );
        return Err((path, unmet::INVALID_CERTIFICATE, why));
    }
    let from = (object.type_meta.kind.as_str(), own);
    if namespace != own && !granted(mesh, from, ("", "Secret", namespace, name)) {
        let why = format!("no ReferenceGrant in {namespace} allows the use of Secret {name}");
        return Err((path, unmet::NOT_PERMITTED, why));
    }
    if mesh.get(Kind::Secret, namespace, name).is_none() {
        let why = format!("there is no Secret {namespace}/{name}");
        return Err((path, unmet::INVALID_CERTIFICATE, why));
    }
    let insecure = validation.mode == FrontendValidationMode::AllowInsecureFallback;
    out.mode = if insecure { Mode::OptionalMutual } else { Mode::Mutual };
    out.insecure_skip_verify = Some(insecure);
    out.ca_cert_credential_name = format!("kubernetes-gateway://{namespace}/{name}-cacert");
    Ok(())
}
