//! What stands against compressing a response, whatever its client accepts.

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName,
};
use http::{HeaderMap, StatusCode};

use crate::config::compression::{CompressedResponses, Compressible, EtagRule};
use crate::config::matcher::joined;
use crate::http::upgrade;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nothing is compressed here.
    Disabled,
    /// It is too small.
    Length,
    /// It is no body but a switch of protocols.
    Upgrade,
    /// Its content type is not among those to be compressed.
    Type,
    /// It says `no-transform`.
    NoTransform,
    /// It has an etag.
    Etag,
    /// It is encoded already.
    Encoded,
    /// Its status is among those not to be compressed.
    Status,
}

/// The order in which Envoy looks for them, which shows in what it counts.
const ORDER: [Obstacle; 8] = [
    Obstacle::Disabled,
    Obstacle::Length,
    Obstacle::Upgrade,
    Obstacle::Type,
    Obstacle::NoTransform,
    Obstacle::Etag,
    Obstacle::Encoded,
    Obstacle::Status,
];

/// The same where the client is told.
const ORDER_IF_TOLD: [Obstacle; 8] = [
    Obstacle::Disabled,
    Obstacle::Upgrade,
    Obstacle::NoTransform,
    Obstacle::Encoded,
    Obstacle::Length,
    Obstacle::Type,
    Obstacle::Etag,
    Obstacle::Status,
];

impl Obstacle {
    /// The first that stands against compressing a response, if compression is `enabled`.
    pub(super) fn find(
        rules: &CompressedResponses,
        enabled: bool,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Self> {
        let order = if rules.tells_status { ORDER_IF_TOLD } else { ORDER };
        order.into_iter().find(|obstacle| match obstacle {
            Self::Disabled => !enabled,
            Self::Length => !rules.which.is_large_enough(headers),
            Self::Upgrade => upgrade::requested(headers).is_some(),
            Self::Type => !rules.which.is_of_type(headers),
            Self::NoTransform => has_token(headers, &CACHE_CONTROL, "no-transform"),
            Self::Etag => rules.etag == EtagRule::Respect && headers.contains_key(ETAG),
            Self::Encoded => headers.contains_key(CONTENT_ENCODING),
            Self::Status => rules.uncompressible.contains(&status),
        })
    }

    /// How `x-envoy-compression-status` tells it, if it does.
    pub(super) fn told(self) -> Option<&'static str> {
        match self {
            Self::Length => Some("ContentLengthTooSmall"),
            Self::Type => Some("ContentTypeNotAllowed"),
            Self::Etag => Some("EtagNotAllowed"),
            Self::Status => Some("StatusCodeNotAllowed"),
            Self::Disabled | Self::Upgrade | Self::NoTransform | Self::Encoded => None,
        }
    }
}

impl Compressible {
    /// Whether a body is large enough, or does not say how large it is.
    pub(super) fn is_large_enough(&self, headers: &HeaderMap) -> bool {
        let Some(length) = headers.get(CONTENT_LENGTH) else { return true };
        let length: Option<u64> = length.to_str().ok().and_then(|length| length.parse().ok());
        length.is_some_and(|length| length >= self.min_content_length)
    }

    /// Whether a body's content type is among those to be compressed; one without is.
    pub(super) fn is_of_type(&self, headers: &HeaderMap) -> bool {
        content_type(headers).is_none_or(|kind| self.content_types.contain(kind))
    }
}

/// A body's content type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&[u8]> {
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    kind.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

/// Whether a list has `token`, whatever the case.
pub(in crate::http::filter) fn has_token(
    headers: &HeaderMap,
    name: &HeaderName,
    token: &str,
) -> bool {
    joined(headers, name).is_some_and(|list| {
        list.split(|byte| *byte == b',')
            .any(|it| it.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compression::ContentTypes;

    const RULES: CompressedResponses = CompressedResponses {
        enabled: true,
        which: Compressible {
            min_content_length: 30,
            content_types: ContentTypes::Named(Vec::new()),
        },
        etag: EtagRule::Respect,
        removes_accept_encoding: false,
        uncompressible: Vec::new(),
        tells_status: false,
    };

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_first_obstacle_depends_on_whether_the_client_is_told() {
        let bad = headers(&[
            (CONTENT_LENGTH, "29"),
            (CONTENT_TYPE, "text/plain"),
            (CACHE_CONTROL, "max-age=1, No-Transform"),
            (ETAG, "x"),
            (CONTENT_ENCODING, "x"),
        ]);
        let told = CompressedResponses { tells_status: true, ..RULES };
        let find = |rules: &CompressedResponses, enabled| {
            Obstacle::find(rules, enabled, StatusCode::OK, &bad)
        };
        assert_eq!(find(&RULES, true), Some(Obstacle::Length));
        assert_eq!(find(&told, true), Some(Obstacle::NoTransform));
        assert_eq!(find(&told, false), Some(Obstacle::Disabled));
    }

    #[test]
    fn what_does_not_say_its_length_or_type_is_compressed() {
        let find = |all: &[_]| Obstacle::find(&RULES, true, StatusCode::OK, &headers(all));
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[(CONTENT_LENGTH, "30")]), None);
        assert_eq!(find(&[(CONTENT_LENGTH, "x")]), Some(Obstacle::Length));
        assert_eq!(find(&[(CONTENT_TYPE, "text/plain")]), Some(Obstacle::Type));
        assert_eq!(find(&[(ETAG, "\"x\"")]), Some(Obstacle::Etag));
    }

    #[test]
    fn types_are_compared_without_their_parameters() {
        let named = ContentTypes::Named(vec!["text/html".into()]);
        let which = Compressible { min_content_length: 0, content_types: named };
        for (kind, compressed) in
            [("Text/HTML; charset=utf-8", true), ("text/html5", false), ("", false)]
        {
            assert_eq!(which.is_of_type(&headers(&[(CONTENT_TYPE, kind)])), compressed, "{kind}");
        }
    }
}
