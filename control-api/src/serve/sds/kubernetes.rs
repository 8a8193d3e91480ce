//! Certificates in `Secret` objects, by the names that Istio's configuration gives them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::{certificate, trusting};
use crate::model::Mesh;
use crate::model::kind::{Kind, Spec};
use crate::model::kubernetes;

/// Ends the name of what clients of a gateway are verified against.
const ROOTS: &str = "-cacert";

/// A `Secret` that a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'n> {
    pub(super) kind: ReferenceKind,
    pub(super) namespace: &'n str,
    pub(super) name: &'n str,
}

/// Which API a name was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReferenceKind {
    /// `kubernetes://NAME`: of Istio's `Gateway`.
    Istio,
    /// `kubernetes-gateway://NAMESPACE/NAME`: of the Gateway API's.
    GatewayApi,
}

impl<'n> Reference<'n> {
    /// What `name` means to a proxy in this namespace.
    pub(super) fn parse(name: &'n str, namespace: &'n str) -> Option<Self> {
        let (kind, namespace, name) = if let Some(rest) = name.strip_prefix("kubernetes://") {
            let (namespace, name) = rest.split_once('/').unwrap_or((namespace, rest));
            (ReferenceKind::Istio, namespace, name)
        } else {
            let rest = name.strip_prefix("kubernetes-gateway://")?;
            let (namespace, name) = rest.split_once('/')?;
            (ReferenceKind::GatewayApi, namespace, name)
        };
        let good = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        good.then_some(Self { kind, namespace, name })
    }

    /// Whether it is only about roots, which are no secret.
    pub(super) fn is_public(&self) -> bool {
        self.name.ends_with(ROOTS)
    }

    /// The name without the ending that asks for roots.
    pub(super) fn base(&self) -> &'n str {
        self.name.strip_suffix(ROOTS).unwrap_or(self.name)
    }
}

/// The secret called `name`, which `reference` is.
///
/// # Errors
/// What to check, to be read after the name.
pub(super) fn secret(mesh: &Mesh, name: &str, reference: &Reference<'_>) -> Result<Secret, String> {
    let Reference { namespace, .. } = *reference;
    let find = |name| match &mesh.get(Kind::Secret, namespace, name)?.spec {
        Spec::Secret(secret) => Some(secret),
        _ => None,
    };
    // Roots may be in a secret of their own, or beside the certificate.
    let found = find(reference.name).or_else(|| find(reference.base()));
    let found = found.ok_or_else(|| {
        format!("is not there: add the Secret {} to the namespace {namespace}", reference.base())
    })?;
    let first = |keys: [&str; 2]| {
        let mut values = keys.into_iter().map(|key| value(found, key));
        values.find_map(Result::transpose).transpose()
    };
    if reference.is_public() {
        let roots = first(["cacert", "ca.crt"])?;
        let roots = roots.ok_or("has neither cacert nor ca.crt".to_owned())?;
        return Ok(trusting(name, roots, first(["crl", "ca.crl"])?));
    }
    for (chain, key) in [("cert", "key"), ("tls.crt", "tls.key")] {
        if let (Some(chain), Some(key)) = (value(found, chain)?, value(found, key)?) {
            return Ok(certificate(name, chain, key));
        }
    }
    Err("has neither tls.crt and tls.key, nor cert and key".to_owned())
}

/// What the secret holds under `key`, unless it is nothing.
fn value(secret: &kubernetes::Secret, key: &str) -> Result<Option<Vec<u8>>, String> {
    let plain = secret.string_data.get(key).map(|text| Ok(text.clone().into_bytes()));
    let decode = |text: &String| {
        // YAML folds long lines.
        let text: String = text.split_ascii_whitespace().collect();
        STANDARD.decode(text).map_err(|error| format!("{key} is not base64: {error}"))
    };
    let found = plain.or_else(|| secret.data.get(key).map(decode)).transpose()?;
    Ok(found.filter(|bytes| !bytes.is_empty()))
}
