//! Tokens of Kubernetes' service accounts, verified with the issuer's public keys and without asking it.

use std::path::PathBuf;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::token_file::{USER, service_account};

/// The audience that tokens for Istio's control plane have.
pub const AUDIENCE: &str = "istio-ca";

/// Clocks may differ by as much, in seconds.
const LEEWAY: u64 = 60;

/// How tokens of service accounts are verified.
#[derive(Debug, Clone)]
pub struct ServiceAccountTokens {
    /// `iss`: who makes them; Kubernetes' default is `https://kubernetes.default.svc`.
    pub issuer: String,
    /// `aud`: one of these.
    pub audiences: Vec<String>,
    /// The issuer's public keys: a JSON Web Key Set, as `kubectl get --raw /openid/v1/jwks` prints it, or PEM.
    pub keys: PathBuf,
}

/// What such a token says, as far as it matters.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: ServiceAccount,
}

#[derive(Debug, Deserialize)]
struct ServiceAccount {
    name: String,
}

impl ServiceAccountTokens {
    /// The namespace and name of the service account that `token` belongs to.
    ///
    /// # Errors
    /// Why it is not accepted, to be read after "the token".
    pub(super) fn verify(&self, token: &str) -> Result<(String, String), String> {
        let header =
            decode_header(token).map_err(|_| "is no JSON Web Token and in no file".to_owned())?;
        let keys = self.keys_for(&header).inspect_err(|error| {
            tracing::error!(%error, "tokens of service accounts cannot be verified");
        });
        let keys = keys.map_err(|_| "cannot be verified here at present".to_owned())?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let mut why = "is signed with a key that is not the issuer's".to_owned();
        for key in keys {
            match decode::<Claims>(token, &key, &validation) {
                Ok(token) => return token.claims.owner(),
                Err(error) => {
                    use jsonwebtoken::errors::ErrorKind;
                    match error.kind() {
                        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => {}
                        _ => why = self.reason(&error),
                    }
                }
            }
        }
        Err(why)
    }

    fn reason(&self, error: &jsonwebtoken::errors::Error) -> String {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::ExpiredSignature => "has expired: is it read anew from its file?".to_owned(),
            ErrorKind::ImmatureSignature => "is not valid yet: check the clocks".to_owned(),
            ErrorKind::InvalidAudience => {
                format!("is for another audience than {}", self.audiences.join(", "))
            }
            ErrorKind::InvalidIssuer => "is from another issuer".to_owned(),
            _ => format!("is not usable: {error}"),
        }
    }

    /// The keys that may have signed a token with this header.
    fn keys_for(&self, header: &Header) -> Result<Vec<DecodingKey>, String> {
        let place = |error: String| format!("{}: {error}", self.keys.display());
        let text = std::fs::read_to_string(&self.keys).map_err(|error| place(error.to_string()))?;
        if text.trim_start().starts_with('{') {
            return of_jwks(&text, header).map_err(place);
        }
        of_pem(&text, header.alg).map_err(place)
    }
}

fn of_jwks(text: &str, header: &Header) -> Result<Vec<DecodingKey>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let fits = |id: &Option<String>| match (id, &header.kid) {
        (Some(id), Some(wanted)) => id == wanted,
        _ => true,
    };
    let keys = set.keys.iter().filter(|key| fits(&key.common.key_id));
    // A key of a kind that is not known here has signed nothing that is accepted.
    Ok(keys.filter_map(|key| DecodingKey::from_jwk(key).ok()).collect())
}

fn of_pem(text: &str, algorithm: Algorithm) -> Result<Vec<DecodingKey>, String> {
    use Algorithm as A;
    let make: fn(&[u8]) -> DecodingKey = match algorithm {
        A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512 => {
            DecodingKey::from_rsa_der
        }
        A::ES256 | A::ES384 => DecodingKey::from_ec_der,
        A::EdDSA => DecodingKey::from_ed_der,
        // A secret is nothing that a public key is.
        _ => return Ok(Vec::new()),
    };
    let mut keys = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|error| error.to_string())?;
        let (_, key) = SubjectPublicKeyInfo::from_der(&der).map_err(|error| error.to_string())?;
        keys.push(make(&key.subject_public_key.data));
    }
    if keys.is_empty() { Err("neither JWKS nor PEM public keys".to_owned()) } else { Ok(keys) }
}

impl Claims {
    fn owner(self) -> Result<(String, String), String> {
        let subject = service_account(&self.sub)
            .ok_or_else(|| format!("is not of a service account: its subject is not {USER}…"))?;
        match self.kubernetes {
            Some(Kubernetes { namespace, serviceaccount })
                if (namespace.as_str(), serviceaccount.name.as_str())
                    != (subject.0.as_str(), subject.1.as_str()) =>
            {
                Err("says two different things about its service account".to_owned())
            }
            _ => Ok(subject),
        }
    }
}
