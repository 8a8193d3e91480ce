//! An issuer of JSON web tokens: keys, the set of them that it publishes, and tokens signed with them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An issuer with one key.
#[derive(Debug)]
pub struct Issuer {
    name: String,
    algorithm: &'static str,
    key: Key,
    secret: [u8; 32],
}

#[derive(Debug)]
enum Key {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
    Secret(hmac::Algorithm),
}

impl Issuer {
    /// An issuer that signs with ES256; `name` is what its tokens say in `iss`.
    pub fn new(name: &str) -> Self {
        Self::signing(name, "ES256")
    }

    /// An issuer that signs with `algorithm`.
    pub fn signing(name: &str, algorithm: &'static str) -> Self {
        let rsa = |encoding| {
            Key::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()), encoding)
        };
        let ec = |curve, algorithm: &'static EcdsaSigningAlgorithm| {
            Key::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve)
        };
        let key = match algorithm {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "ES256" => ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ec("P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
            "EdDSA" => Key::Ed25519(Ed25519KeyPair::generate().unwrap()),
            "HS256" => Key::Secret(hmac::HMAC_SHA256),
            "HS384" => Key::Secret(hmac::HMAC_SHA384),
            "HS512" => Key::Secret(hmac::HMAC_SHA512),
            other => panic!("no algorithm {other}"),
        };
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).unwrap();
        Self { name: name.to_owned(), algorithm, key, secret }
    }

    /// Its public key, or the secret that it shares.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.key {
            Key::Rsa(pair, _) => json!({
                "kty": "RSA",
                "n": text(pair.public_key().modulus().big_endian_without_leading_zero()),
                "e": text(pair.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Key::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Key::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
            Key::Secret(_) => json!({"kty": "oct", "k": text(&self.secret)}),
        }
    }

    /// The key set that it publishes.
    pub fn jwks(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    /// A token with these claims. It names the issuer, and is good for an hour, unless they say otherwise; null leaves a
    /// claim out.
    pub fn token(&self, claims: Value) -> String {
        self.token_with(json!({}), claims)
    }

    /// As [`token`](Self::token), with more fields in the token's header.
    pub fn token_with(&self, header: Value, claims: Value) -> String {
        let merged = |mut all: Value, more: Value| {
            let (fields, more) = (all.as_object_mut().unwrap(), more.as_object().unwrap());
            fields.extend(more.clone());
            fields.retain(|_, value| !value.is_null());
            all
        };
        let header = merged(json!({"alg": self.algorithm}), header);
        let payload = merged(json!({"iss": self.name, "exp": now() + 3600}), claims);
        let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", text(header), text(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Secret(algorithm) => {
                hmac::sign(&hmac::Key::new(*algorithm, &self.secret), message).as_ref().to_vec()
            }
        }
    }
}

/// The time, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
