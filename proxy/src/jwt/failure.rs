//! Why a request is not let through, in Envoy's words.

use http::StatusCode;

/// Why a token, or the lack of one, is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`text` says what each of them means")]
pub enum Failure {
    Missing,
    NotYetValid,
    Expired,
    Format,
    HeaderBase64,
    HeaderJson,
    HeaderAlg,
    UnsupportedAlg,
    HeaderKid,
    PayloadBase64,
    PayloadJson,
    Issuer,
    Subject,
    IssuedAt,
    IssuedAtRange,
    NotBefore,
    NotBeforeRange,
    Expires,
    ExpiresRange,
    TokenId,
    Audience,
    SignatureBase64,
    SignatureLength,
    UnknownIssuer,
    AudienceNotAllowed,
    Verification,
    NoMatchingKey,
    Fetch,
}

impl Failure {
    /// What the client reads.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::Format => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::HeaderAlg => "Jwt header [alg] field is required and must be a string",
            Self::UnsupportedAlg => "Jwt header [alg] is not supported",
            Self::HeaderKid => "Jwt header [kid] field is not a string",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::Issuer => "Jwt payload [iss] field is not a string",
            Self::Subject => "Jwt payload [sub] field is not a string",
            Self::IssuedAt => "Jwt payload [iat] field is not an integer",
            Self::IssuedAtRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            Self::NotBefore => "Jwt payload [nbf] field is not an integer",
            Self::NotBeforeRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Self::Expires => "Jwt payload [exp] field is not an integer",
            Self::ExpiresRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            Self::TokenId => "Jwt payload [jti] field is not a string",
            Self::Audience => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::SignatureLength => "Jwt ED25519 signature is wrong length",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::Verification => "Jwt verification fails",
            Self::NoMatchingKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::Fetch => "Jwks remote fetch is failed",
        }
    }

    /// Its number in dynamic metadata (`failed_status_in_metadata`).
    pub fn code(self) -> u32 {
        match self {
            Self::NoMatchingKey => 32,
            Self::Fetch => 40,
            // The others are numbered as they are listed, from 1.
            other => other as u32 + 1,
        }
    }

    /// What a request is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::AudienceNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_numbers_that_envoy_gives_them() {
        for (failure, code) in [
            (Failure::Missing, 1),
            (Failure::Expired, 3),
            (Failure::Audience, 21),
            (Failure::SignatureBase64, 22),
            (Failure::UnknownIssuer, 24),
            (Failure::Verification, 26),
            (Failure::NoMatchingKey, 32),
            (Failure::Fetch, 40),
        ] {
            assert_eq!(failure.code(), code, "{failure:?}");
        }
    }
}
