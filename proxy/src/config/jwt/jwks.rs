//! JSON web key sets: the public keys, or shared secrets, with which tokens are signed (RFC 7517, RFC 7518, RFC 8037).

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use base64::Engine as _;
use serde_json::{Map, Value};
use x509_parser::pem::parse_x509_pem;
use x509_parser::public_key::PublicKey;

use super::BASE64URL;
use crate::config::json;

/// Smaller RSA keys are of no use, in bits.
const SMALLEST_RSA_KEY: usize = 2048;
/// Of an Ed25519 key, in bytes.
const ED25519_KEY: usize = 32;

/// A set of keys, of which at least one is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    /// In the order of the set; what cannot be used is left out, as in Envoy.
    pub keys: Vec<Jwk>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    /// `kid`; an empty one fits every token.
    pub id: Box<str>,
    /// `alg`; an empty one fits every algorithm of its kind.
    pub algorithm: Box<str>,
    /// The key itself.
    pub key: Key,
}

/// See [`Jwk`].
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// `RSA`
    Rsa {
        /// Modulus, big-endian, without leading zeros.
        n: Box<[u8]>,
        /// Exponent, likewise.
        e: Box<[u8]>,
    },
    /// `EC`
    Ec {
        /// Which curve.
        curve: Curve,
        /// An uncompressed point of it.
        point: Box<[u8]>,
    },
    /// `OKP` on the curve Ed25519
    Ed25519(Box<[u8]>),
    /// `oct`
    Secret(Box<[u8]>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One kind is secret, and the others are long.
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { .. } => "EC",
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "oct",
        })
    }
}

/// A curve of ECDSA, with its one algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// `P-256`, for ES256
    P256,
    /// `P-384`, for ES384
    P384,
    /// `P-521`, for ES512
    P521,
}

impl Curve {
    /// How signatures on it are verified.
    pub fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    /// Length of a coordinate, in bytes.
    fn coordinate(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Jwks {
    /// Reads a key set, or an object of certificates by key id, which some issuers publish instead.
    ///
    /// # Errors
    /// Why there is not one usable key, for the operator.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let Some(set) = json::object(text) else { return Err("Jwks is an invalid JSON".into()) };
        let keys = match set.get("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err("[keys] in Jwks is not an array".into()),
            None if are_certificates(&set) => return certificates(&set),
            None => return Err("Jwks does not have [keys] field".into()),
        };
        let mut problem = None;
        let mut usable = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().filter_map(Value::as_object).enumerate() {
            match jwk(key) {
                Ok(key) => usable.push(key),
                Err(error) => problem = problem.or(Some(format!(": keys[{index}]: {error}"))),
            }
        }
        if usable.is_empty() {
            let problem = problem.unwrap_or_default();
            return Err(format!("Jwks doesn't have any valid public key{problem}"));
        }
        Ok(Self { keys: usable })
    }
}

fn jwk(fields: &Map<String, Value>) -> Result<Jwk, String> {
    let optional = |name| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let (id, algorithm) = (optional("kid"), optional("alg"));
    let kind = text(fields, "kty")?;
    let fits: &[&str] = match kind {
        "RSA" => &["RS", "PS"],
        "EC" => &["ES"],
        "oct" => &["HS256", "HS384", "HS512"],
        "OKP" => &["EdDSA"],
        other => return Err(format!("[kty] {other} is not supported")),
    };
    if !algorithm.is_empty() && !fits.iter().any(|beginning| algorithm.starts_with(beginning)) {
        return Err(format!("[alg] {algorithm} is none for a key of [kty] {kind}"));
    }
    let key = match kind {
        "RSA" => rsa(&bytes(fields, "n")?, &bytes(fields, "e")?)?,
        "EC" => ec(fields, algorithm)?,
        "oct" => match bytes(fields, "k")? {
            secret if secret.is_empty() => return Err("[k] is empty".into()),
            secret => Key::Secret(secret.into()),
        },
        _ => match (text(fields, "crv")?, bytes(fields, "x")?) {
            ("Ed25519", x) if x.len() == ED25519_KEY => Key::Ed25519(x.into()),
            ("Ed25519", _) => return Err("[x] has a wrong length".into()),
            (other, _) => return Err(format!("[crv] {other} is not supported")),
        },
    };
    Ok(Jwk { id: id.into(), algorithm: algorithm.into(), key })
}

fn rsa(n: &[u8], e: &[u8]) -> Result<Key, String> {
    let (n, e) = (without_zeros(n), without_zeros(e));
    let leading = n.first().map_or(0, |first| first.leading_zeros() as usize);
    if n.len() * 8 - leading < SMALLEST_RSA_KEY {
        return Err(format!("RSA keys have at least {SMALLEST_RSA_KEY} bits"));
    }
    if e != [3] && e != [1, 0, 1] {
        return Err("[e] is neither 3 nor 65537".into());
    }
    Ok(Key::Rsa { n: n.into(), e: e.into() })
}

fn ec(fields: &Map<String, Value>, algorithm: &str) -> Result<Key, String> {
    let curve = fields.get("crv").map(|curve| curve.as_str().ok_or("[crv] is no text"));
    let curve = match (curve.transpose()?, algorithm) {
        (Some("P-256") | None, "ES256") | (Some("P-256") | None, "") => Curve::P256,
        (Some("P-384") | None, "ES384") | (Some("P-384"), "") => Curve::P384,
        (Some("P-521") | None, "ES512") | (Some("P-521"), "") => Curve::P521,
        (curve, _) => {
            let curve = curve.unwrap_or_default();
            return Err(format!("[crv] {curve} and [alg] {algorithm} do not go together"));
        }
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = bytes(fields, name)?;
        let coordinate = without_zeros(&coordinate);
        let Some(zeros) = curve.coordinate().checked_sub(coordinate.len()) else {
            return Err(format!("[{name}] is too long"));
        };
        point.resize(point.len() + zeros, 0);
        point.extend_from_slice(coordinate);
    }
    if ParsedPublicKey::new(curve.verification(), &point).is_err() {
        return Err("[x] and [y] are no point of the curve".into());
    }
    Ok(Key::Ec { curve, point: point.into() })
}

fn are_certificates(set: &Map<String, Value>) -> bool {
    let certificate = |value: &Value| {
        value.as_str().is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE-----\n"))
    };
    !set.is_empty() && set.iter().all(|(id, value)| !id.is_empty() && certificate(value))
}

fn certificates(set: &Map<String, Value>) -> Result<Jwks, String> {
    let one = |(id, value): (&String, &Value)| {
        let text = value.as_str().unwrap_or_default();
        let unreadable = || format!("the certificate `{id}` cannot be read");
        let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| unreadable())?;
        let certificate = pem.parse_x509().map_err(|_| unreadable())?;
        match certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => {
                let key = rsa(key.modulus, key.exponent)?;
                Ok(Jwk { id: id.as_str().into(), algorithm: "".into(), key })
            }
            _ => Err(format!("the key of the certificate `{id}` is no RSA key")),
        }
    };
    set.iter().map(one).collect::<Result<_, String>>().map(|keys| Jwks { keys })
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let value = fields.get(name).ok_or_else(|| format!("[{name}] is missing"))?;
    value.as_str().ok_or_else(|| format!("[{name}] is no text"))
}

fn bytes(fields: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(fields, name)?;
    BASE64URL.decode(text).map_err(|_| format!("[{name}] is no base64url"))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use certs::{Authority, KeyKind, Request};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const P256: (&str, &str) = (
        "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    );

    fn parse(set: &Value) -> Result<Jwks, String> {
        Jwks::parse(set.to_string().as_bytes())
    }

    fn error(set: &Value) -> String {
        parse(set).unwrap_err()
    }

    #[test]
    fn every_kind_of_key_is_read() {
        let n = BASE64URL.encode([&[0, 0x80][..], &[1; 255]].concat());
        let set = json!({"keys": [
            {"kty": "RSA", "n": n, "e": "AQAB", "kid": "r", "alg": "RS256", "use": "sig"},
            {"kty": "EC", "crv": "P-256", "x": P256.0, "y": P256.1},
            {"kty": "OKP", "crv": "Ed25519", "x": BASE64URL.encode([7; 32])},
            {"kty": "oct", "k": "c2VjcmV0", "alg": "HS512"},
            {"kty": "unknown"},
            "nonsense",
        ]});
        let keys = parse(&set).unwrap().keys;
        let kinds: Vec<_> = keys.iter().map(|key| format!("{:?}", key.key)).collect();
        assert_eq!(kinds, ["RSA", "EC", "Ed25519", "oct"]);
        assert_eq!((&*keys[0].id, &*keys[0].algorithm), ("r", "RS256"));
        let Key::Rsa { n, .. } = &keys[0].key else { panic!() };
        assert_eq!((n.len(), n[0]), (256, 0x80));
    }

    #[test]
    fn what_is_unusable_is_said() {
        assert_eq!(Jwks::parse(b"x").unwrap_err(), "Jwks is an invalid JSON");
        assert_eq!(error(&json!({})), "Jwks does not have [keys] field");
        assert_eq!(error(&json!({"keys": 1})), "[keys] in Jwks is not an array");
        let none = "Jwks doesn't have any valid public key";
        assert_eq!(error(&json!({"keys": []})), none);
        for (key, reason) in [
            (json!({}), "[kty] is missing"),
            (json!({"kty": 1}), "[kty] is no text"),
            (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), "RSA keys have at least 2048 bits"),
            (json!({"kty": "RSA", "e": "AQAB"}), "[n] is missing"),
            (json!({"kty": "RSA", "alg": "ES256"}), "[alg] ES256 is none for a key of [kty] RSA"),
            (
                json!({"kty": "EC", "crv": "P-384", "alg": "ES256"}),
                "[crv] P-384 and [alg] ES256 do not go together",
            ),
            (
                json!({"kty": "EC", "x": P256.1, "y": P256.0}),
                "[x] and [y] are no point of the curve",
            ),
            (json!({"kty": "oct", "k": ""}), "[k] is empty"),
            (json!({"kty": "oct", "k": "!"}), "[k] is no base64url"),
            (json!({"kty": "OKP", "crv": "X25519", "x": ""}), "[crv] X25519 is not supported"),
        ] {
            let set = json!({"keys": [key]});
            assert_eq!(error(&set), format!("{none}: keys[0]: {reason}"));
        }
    }

    #[test]
    fn certificates_by_key_id_are_keys_too() {
        let issued = |kind| {
            let request = Request::default().dns("a.example").key(kind);
            Authority::self_signed("root").unwrap().issue(&request).unwrap().chain_pem
        };
        let keys = parse(&json!({"a": issued(KeyKind::Rsa2048)})).unwrap().keys;
        assert_eq!((keys.len(), &*keys[0].id, &*keys[0].algorithm), (1, "a", ""));
        assert!(matches!(&keys[0].key, Key::Rsa { n, e } if n.len() == 256 && **e == [1, 0, 1]));
        let other = error(&json!({"a": issued(KeyKind::EcdsaP256)}));
        assert_eq!(other, "the key of the certificate `a` is no RSA key");
        let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(error(&json!({"k": text})), "the certificate `k` cannot be read");
    }

    proptest! {
        #[test]
        fn nothing_panics(kind in "RSA|EC|oct|OKP", a in "[A-Za-z0-9_-]{0,60}", b in ".{0,8}") {
            let key = json!({"kty": kind, "crv": b, "n": a, "e": b, "x": a, "y": a, "k": b});
            let _ = parse(&json!({"keys": [key]}));
        }
    }
}
