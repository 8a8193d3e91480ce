//! A token as its text says: nothing here is believed until [`super::verify`] has said so.

use std::rc::Rc;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::Failure;
use crate::config::json;
use crate::config::jwt::{BASE64URL, Lifetime, Provider};

/// What a token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its header.
    pub header: Map<String, Value>,
    /// Its claims.
    pub payload: Map<String, Value>,
    /// The claims as they are written: base64url without padding.
    pub payload_text: Box<str>,
    /// `alg`
    pub algorithm: Algorithm,
    /// `kid`; empty if it names no key.
    pub key_id: Box<str>,
    /// `iss`; empty if it names none.
    pub issuer: Box<str>,
    /// `sub`; likewise.
    pub subject: Box<str>,
    /// `aud`
    pub audiences: Vec<Box<str>>,
    /// `nbf`, in seconds since 1970; 0 if it does not say.
    pub not_before: u64,
    /// `exp`, likewise.
    pub expires: u64,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the names of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    const NAMES: [(&'static str, Self); 13] = [
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("EdDSA", Self::EdDsa),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// A token with what is signed of it.
#[derive(Debug)]
pub struct Signed {
    /// What it says.
    pub token: Rc<Token>,
    /// What is signed.
    pub message: Box<str>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl Signed {
    /// Reads a token.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        // Envoy does not mind empty sections.
        let mut sections = text.split('.').filter(|section| !section.is_empty());
        let (Some(head), Some(payload_text), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Failure::Format);
        };
        let header = BASE64URL.decode(head).map_err(|_| Failure::HeaderBase64)?;
        let header = json::object(&header).ok_or(Failure::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Failure::HeaderAlg)?;
        let algorithm = Algorithm::parse(algorithm).ok_or(Failure::UnsupportedAlg)?;
        let key_id = text_of(&header, "kid", Failure::HeaderKid)?;
        let payload = BASE64URL.decode(payload_text).map_err(|_| Failure::PayloadBase64)?;
        let payload = json::object(&payload).ok_or(Failure::PayloadJson)?;
        let issuer = text_of(&payload, "iss", Failure::Issuer)?;
        let subject = text_of(&payload, "sub", Failure::Subject)?;
        time_of(&payload, "iat", Failure::IssuedAt, Failure::IssuedAtRange)?;
        let not_before = time_of(&payload, "nbf", Failure::NotBefore, Failure::NotBeforeRange)?;
        let expires = time_of(&payload, "exp", Failure::Expires, Failure::ExpiresRange)?;
        text_of(&payload, "jti", Failure::TokenId)?;
        let audiences = audiences_of(&payload)?;
        let signature = BASE64URL.decode(signature).map_err(|_| Failure::SignatureBase64)?;
        Ok(Self {
            message: format!("{head}.{payload_text}").into(),
            signature,
            token: Rc::new(Token {
                header,
                payload,
                payload_text: payload_text.into(),
                algorithm,
                key_id,
                issuer,
                subject,
                audiences,
                not_before,
                expires,
            }),
        })
    }
}

impl Token {
    /// Whether it is good at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_time(&self, now: u64, clock_skew: u64) -> Result<(), Failure> {
        if now.saturating_add(clock_skew) < self.not_before {
            Err(Failure::NotYetValid)
        } else if self.expires != 0 && now > self.expires.saturating_add(clock_skew) {
            Err(Failure::Expired)
        } else {
            Ok(())
        }
    }

    /// Whether `provider` issues tokens for its subject, and for so long.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_subject(&self, provider: &Provider, now: u64) -> Result<(), Failure> {
        let subject = provider.subjects.as_ref();
        let lives = match provider.lifetime {
            Lifetime::Any => true,
            Lifetime::Limited => self.expires != 0,
            Lifetime::AtMost(longest) => {
                let left = self.expires.saturating_sub(now);
                self.expires != 0 && std::time::Duration::from_secs(left) < longest
            }
        };
        if lives && subject.is_none_or(|it| it.matches(self.subject.as_bytes())) {
            Ok(())
        } else {
            Err(Failure::Verification)
        }
    }
}

fn text_of(fields: &Map<String, Value>, name: &str, other: Failure) -> Result<Box<str>, Failure> {
    match fields.get(name) {
        None => Ok("".into()),
        Some(Value::String(text)) => Ok(text.as_str().into()),
        Some(_) => Err(other),
    }
}

/// A point in time, in whole seconds; 0 if there is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the fraction of a second is dropped, and the range is checked"
)]
fn time_of(
    fields: &Map<String, Value>,
    name: &str,
    other: Failure,
    range: Failure,
) -> Result<u64, Failure> {
    let Some(value) = fields.get(name) else { return Ok(0) };
    match value.as_f64() {
        None => Err(other),
        Some(time) if (0.0..u64::MAX as f64).contains(&time) => Ok(time as u64),
        Some(_) => Err(range),
    }
}

fn audiences_of(payload: &Map<String, Value>) -> Result<Vec<Box<str>>, Failure> {
    let text = |value: &Value| value.as_str().map(Into::into).ok_or(Failure::Audience);
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, payload: &str) -> Result<Rc<Token>, Failure> {
        let encode = |text: &str| BASE64URL.encode(text);
        let text = format!("{}.{}.AAAA", encode(header), encode(payload));
        Signed::parse(&text).map(|signed| signed.token)
    }

    fn claims(payload: &str) -> Result<Rc<Token>, Failure> {
        token(r#"{"alg":"RS256"}"#, payload)
    }

    #[test]
    fn what_it_says_is_read() {
        let header = r#"{"alg":"EdDSA","kid":"k"}"#;
        let read = token(header, r#"{"iss":"i","sub":"s","aud":["a","b"],"exp":7.9,"nbf":1}"#);
        let read = read.unwrap();
        assert_eq!((read.algorithm, &*read.key_id, &*read.issuer), (Algorithm::EdDsa, "k", "i"));
        assert_eq!((&*read.subject, read.expires, read.not_before), ("s", 7, 1));
        assert_eq!(read.audiences, ["a".into(), Box::<str>::from("b")]);
        assert_eq!(BASE64URL.decode(&*read.payload_text).unwrap()[..8], *br#"{"iss":""#);
    }

    #[test]
    fn each_mistake_has_its_words() {
        use Failure as F;
        for (text, failure) in [
            ("", F::Format),
            ("a.b", F::Format),
            ("a.b.c.d", F::Format),
            ("!.b.c", F::HeaderBase64),
            ("e30.b.c", F::HeaderAlg),
        ] {
            assert_eq!(Signed::parse(text).unwrap_err(), failure, "{text}");
        }
        for (header, failure) in [
            ("[]", F::HeaderJson),
            (r#"{"alg":"RS256","alg":"RS256"}"#, F::HeaderJson),
            (r#"{"alg":1}"#, F::HeaderAlg),
            (r#"{"alg":"none"}"#, F::UnsupportedAlg),
            (r#"{"alg":"RS256","kid":1}"#, F::HeaderKid),
        ] {
            assert_eq!(token(header, "{}").unwrap_err(), failure, "{header}");
        }
        for (payload, failure) in [
            ("x", F::PayloadJson),
            (r#"{"iss":1}"#, F::Issuer),
            (r#"{"sub":1}"#, F::Subject),
            (r#"{"iat":"1"}"#, F::IssuedAt),
            (r#"{"iat":-1}"#, F::IssuedAtRange),
            (r#"{"nbf":"1"}"#, F::NotBefore),
            (r#"{"nbf":1e30}"#, F::NotBeforeRange),
            (r#"{"exp":null}"#, F::Expires),
            (r#"{"exp":-1}"#, F::ExpiresRange),
            (r#"{"jti":1}"#, F::TokenId),
            (r#"{"aud":["a",1]}"#, F::Audience),
            (r#"{"aud":{}}"#, F::Audience),
        ] {
            assert_eq!(claims(payload).unwrap_err(), failure, "{payload}");
        }
        let parts = |payload, signature| format!("eyJhbGciOiJSUzI1NiJ9.{payload}.{signature}");
        assert_eq!(Signed::parse(&parts("!", "AA")).unwrap_err(), F::PayloadBase64);
        assert_eq!(Signed::parse(&parts("e30", "A")).unwrap_err(), F::SignatureBase64);
        assert!(Signed::parse(&parts("e30", "AA==")).is_ok());
    }

    #[test]
    fn clocks_may_be_a_little_wrong() {
        let read = claims(r#"{"nbf":1000,"exp":2000}"#).unwrap();
        for (now, expected) in [
            (939, Err(Failure::NotYetValid)),
            (940, Ok(())),
            (2060, Ok(())),
            (2061, Err(Failure::Expired)),
        ] {
            assert_eq!(read.check_time(now, 60), expected, "{now}");
        }
        assert_eq!(claims("{}").unwrap().check_time(u64::MAX, 60), Ok(()));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[A-Za-z0-9_.=-]{0,80}|.{0,40}") {
            let _ = Signed::parse(&text);
        }
    }
}
