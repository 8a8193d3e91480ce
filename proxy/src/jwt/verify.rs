//! Whether one of a set's keys has signed a token.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::Failure;
use super::token::{Algorithm, Signed};
use crate::config::jwt::jwks::{Curve, Jwks, Key};

/// Of an Ed25519 signature, in bytes.
const ED25519_SIGNATURE: usize = 64;

/// Checks the signature of a token. A key that names an id or an algorithm is for these alone; a token without key id
/// may be signed by any.
///
/// # Errors
/// If none of `keys` has signed it.
pub fn verify(signed: &Signed, keys: &Jwks) -> Result<(), Failure> {
    let token = &signed.token;
    let fits = |own: &str, other: &str| own.is_empty() || other.is_empty() || own == other;
    let mut candidates = keys
        .keys
        .iter()
        .filter(|key| fits(&key.id, &token.key_id) && fits(&key.algorithm, token.algorithm.name()));
    let mut failure = Failure::NoMatchingKey;
    if candidates.any(|candidate| {
        failure = match &candidate.key {
            Key::Ed25519(_) if signed.signature.len() != ED25519_SIGNATURE => {
                Failure::SignatureLength
            }
            _ => Failure::Verification,
        };
        has_signed(&candidate.key, signed)
    }) {
        Ok(())
    } else {
        Err(failure)
    }
}

/// Whether `key` has signed it. What an algorithm is not meant for, it does not verify.
fn has_signed(key: &Key, Signed { token, message, signature }: &Signed) -> bool {
    let message = message.as_bytes();
    match (key, token.algorithm) {
        (Key::Rsa { n, e }, algorithm) => rsa(algorithm).is_some_and(|parameters| {
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
        }),
        (Key::Ec { curve: curve @ Curve::P256, point }, Algorithm::Es256)
        | (Key::Ec { curve: curve @ Curve::P384, point }, Algorithm::Es384)
        | (Key::Ec { curve: curve @ Curve::P521, point }, Algorithm::Es512) => {
            UnparsedPublicKey::new(curve.verification(), point).verify(message, signature).is_ok()
        }
        (Key::Ed25519(key), Algorithm::EdDsa) => {
            UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        }
        (Key::Secret(secret), algorithm) => hmac(algorithm).is_some_and(|algorithm| {
            hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
        }),
        (Key::Ec { .. } | Key::Ed25519(_), _) => false,
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn hmac(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
        RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    };
    use base64::Engine as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::jwt::BASE64URL;

    /// A token with this header, signed by `sign`.
    fn token(header: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Signed {
        let encode = |value: &Value| BASE64URL.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(&json!({"iss": "i"})));
        let signature = BASE64URL.encode(sign(message.as_bytes()));
        Signed::parse(&format!("{message}.{signature}")).unwrap()
    }

    fn keys(keys: &[Value]) -> Jwks {
        Jwks::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    /// The token is good with `key`, and not when it is changed, or when the key is for another algorithm or id.
    fn check(key: &Value, algorithm: &str, sign: impl Fn(&[u8]) -> Vec<u8>) {
        let good = token(&json!({"alg": algorithm, "kid": "k"}), &sign);
        let with = |name: &str, value: &str| {
            let mut key = key.clone();
            key[name] = value.into();
            keys(&[key])
        };
        assert_eq!(verify(&good, &keys(std::slice::from_ref(key))), Ok(()), "{algorithm}");
        assert_eq!(verify(&good, &with("kid", "k")), Ok(()), "{algorithm}");
        assert_eq!(verify(&good, &with("alg", algorithm)), Ok(()), "{algorithm}");
        let other = verify(&good, &with("kid", "other"));
        assert_eq!(other, Err(Failure::NoMatchingKey), "{algorithm}");
        let mut forged = token(&json!({"alg": algorithm}), &sign);
        forged.signature[9] ^= 1;
        assert_eq!(verify(&forged, &keys(std::slice::from_ref(key))), Err(Failure::Verification));
        // A key is never taken for one of another kind.
        for wrong in ["HS256", "RS256", "ES384", "EdDSA"].into_iter().filter(|it| *it != algorithm)
        {
            let confused = token(&json!({"alg": wrong}), &sign);
            assert!(
                verify(&confused, &keys(std::slice::from_ref(key))).is_err(),
                "{algorithm} as {wrong}"
            );
        }
    }

    #[test]
    fn rsa_signatures() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let component = |bytes: &[u8]| BASE64URL.encode(bytes);
        let key = json!({
            "kty": "RSA",
            "n": component(public.modulus().big_endian_without_leading_zero()),
            "e": component(public.exponent().big_endian_without_leading_zero()),
        });
        let algorithms: [(&str, &'static dyn RsaEncoding); 6] = [
            ("RS256", &RSA_PKCS1_SHA256),
            ("RS384", &RSA_PKCS1_SHA384),
            ("RS512", &RSA_PKCS1_SHA512),
            ("PS256", &RSA_PSS_SHA256),
            ("PS384", &RSA_PSS_SHA384),
            ("PS512", &RSA_PSS_SHA512),
        ];
        for (name, encoding) in algorithms {
            check(&key, name, |message| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            });
        }
    }

    #[test]
    fn elliptic_signatures() {
        let algorithms: [(&str, &str, &'static EcdsaSigningAlgorithm); 3] = [
            ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            ("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
        ];
        for (name, curve, algorithm) in algorithms {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let (x, y) =
                pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
            let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
            let key = json!({"kty": "EC", "crv": curve, "x": x, "y": y});
            check(&key, name, |message| {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            });
        }
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL.encode(pair.public_key())});
        check(&key, "EdDSA", |message| pair.sign(message).as_ref().to_vec());
        let short = token(&json!({"alg": "EdDSA"}), |_| vec![1; 63]);
        assert_eq!(verify(&short, &keys(&[key])), Err(Failure::SignatureLength));
    }

    #[test]
    fn shared_secrets() {
        let key = json!({"kty": "oct", "k": BASE64URL.encode("secret")});
        for (name, algorithm) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
        ] {
            let secret = hmac::Key::new(algorithm, b"secret");
            check(&key, name, |message| hmac::sign(&secret, message).as_ref().to_vec());
        }
    }

    #[test]
    fn the_keys_of_a_set_are_tried_in_turn() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key =
            |bytes: &[u8]| json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL.encode(bytes)});
        let set = keys(&[key(&[9; 32]), key(pair.public_key().as_ref())]);
        let good = token(&json!({"alg": "EdDSA"}), |it| pair.sign(it).as_ref().to_vec());
        assert_eq!(verify(&good, &set), Ok(()));
        let other = token(&json!({"alg": "ES256"}), |it| pair.sign(it).as_ref().to_vec());
        assert_eq!(verify(&other, &set), Err(Failure::Verification));
    }
}
