//! The `jwt_authn` filter as configured: who issues tokens, where requests carry them, and which requests need which
//! (Envoy `filters.http.jwt_authn.v3`).

pub mod jwks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderName;

use self::jwks::Jwks;
use super::Name;
use super::matcher::StringMatcher;
use super::route::RouteMatch;
use super::service::HttpUri;
use super::tcp::Backoff;

/// As tokens and keys are written: URL-safe, and padded or not.
pub const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Requirements by name.
pub type Named = BTreeMap<Box<str>, Requirement>;

/// Envoy `JwtAuthentication`.
#[derive(Debug, PartialEq)]
pub struct JwtAuthn {
    /// What it is counted under.
    pub stats: StatsScope,
    /// `providers`, by name.
    pub providers: Vec<Arc<Provider>>,
    /// Where any of the providers looks for tokens.
    pub locations: Vec<Location>,
    /// `rules`: the first that fits a request says what it needs; none means nothing.
    pub rules: Vec<(RouteMatch, Requirement)>,
    /// `filter_state_rules`: for requests that no rule fits, the name of a value and what is needed for each value.
    pub by_filter_state: Option<(Box<str>, Named)>,
    /// `requirement_map`, of which routes choose.
    pub named: Named,
    /// `bypass_cors_preflight`: whether preflights need nothing.
    pub bypass_cors_preflight: bool,
    /// `strip_failure_response`: whether who is refused is not told why.
    pub strip_failure_response: bool,
}

/// `http.MANAGER.jwt_authn.` or `http.MANAGER.jwt_authn.PREFIX.`
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatsScope {
    /// `stat_prefix` of the connection manager.
    pub manager: Name,
    /// `stat_prefix` of the filter; may be empty.
    pub prefix: Name,
}

/// What a route says to the filter (Envoy `PerRouteConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteRequirement {
    /// `disabled`
    Nothing,
    /// `requirement_name`, which the filter should have.
    Named(Box<str>),
}

/// Envoy `JwtRequirement`: what a request needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// `provider_name`, or `provider_and_audiences` with its own audiences.
    Provider(Arc<Provider>, Option<Audiences>),
    /// `requires_any`: one of them; or no token, as far as [`Lenience`] goes.
    Any(Vec<Requirement>, Lenience),
    /// `requires_all`
    All(Vec<Requirement>),
    /// `allow_missing` and `allow_missing_or_failed`, which check the tokens of all providers.
    AnyProvider(Lenience),
    /// `extract_only_without_validation`: as `allow_missing_or_failed`, and this header says `false` of a bad token.
    Told(Option<HeaderName>),
}

/// Whether a requirement is met without a good token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lenience {
    /// It is not.
    None,
    /// `allow_missing`: without any token.
    Missing,
    /// `allow_missing_or_failed`: without any token, or with a bad one.
    Failed,
}

/// Envoy `JwtProvider`: an issuer of tokens.
#[derive(Debug, PartialEq)]
pub struct Provider {
    /// Its name.
    pub name: Name,
    /// `issuer`; none means that of the token does not matter.
    pub issuer: Option<Box<str>>,
    /// `audiences`
    pub audiences: Audiences,
    /// `subjects`
    pub subjects: Option<StringMatcher>,
    /// `require_expiration` and `max_lifetime`
    pub lifetime: Lifetime,
    /// `clock_skew_seconds`
    pub clock_skew: u64,
    /// `remote_jwks` or `local_jwks`
    pub keys: KeySource,
    /// Where requests carry its tokens.
    pub locations: Vec<Location>,
    /// `forward`: whether the token stays in the request.
    pub forward: bool,
    /// `forward_payload_header`, and whether its value is padded (`pad_forward_payload_header`).
    pub payload_header: Option<(HeaderName, bool)>,
    /// `claim_to_headers`: claims by their path, and the headers they are copied to.
    pub claim_headers: Vec<(Vec<Box<str>>, HeaderName)>,
    /// `payload_in_metadata`: the key of the payload.
    pub payload_key: Option<Box<str>>,
    /// `normalize_payload_in_metadata.space_delimited_claims`: claims that are lists, written as words.
    pub lists: Vec<Box<str>>,
    /// `header_in_metadata`: the key of the token's header.
    pub header_key: Option<Box<str>>,
    /// `failed_status_in_metadata`: the key of the reason why a token is bad.
    pub failure_key: Option<Box<str>>,
    /// `clear_route_cache`: whether the route is found anew with what the token says.
    pub clear_route: bool,
    /// How many good tokens each worker remembers, and the longest of them in bytes (`jwt_cache_config`).
    pub cache: (usize, usize),
}

/// How long tokens of a [`Provider`] may be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as they say, or for ever.
    Any,
    /// As long as they say.
    Limited,
    /// Less than this from now on.
    AtMost(Duration),
}

/// Where the keys of a [`Provider`] come from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// `local_jwks`
    Local(Arc<Jwks>),
    /// `remote_jwks`
    Remote(Arc<RemoteJwks>),
}

/// Envoy `RemoteJwks`: keys that are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteJwks {
    /// `http_uri`
    pub uri: HttpUri,
    /// `cache_duration`: how long keys are used before they are fetched anew.
    pub cache_duration: Duration,
    /// `async_fetch`: whether keys are fetched before a request needs them, and after how long again if that fails
    /// (`failed_refetch_duration`).
    pub ahead: Option<Duration>,
    /// `retry_policy`
    pub retries: Option<FetchRetries>,
}

/// How often one fetch is tried again, and after how long (Envoy `core.v3.RetryPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchRetries {
    /// `num_retries`
    pub times: u32,
    /// `retry_back_off`
    pub backoff: Backoff,
}

/// Who a token may be meant for; empty means anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audiences(Vec<Box<str>>);

impl Audiences {
    /// The audiences of this list. A scheme and a slash at the end make no difference, as in Envoy.
    pub fn new(list: &[String]) -> Self {
        Self(list.iter().map(|it| essential(it).into()).collect())
    }

    /// Whether a token for one of `audiences` is allowed.
    pub fn allow<S: AsRef<str>>(&self, audiences: &[S]) -> bool {
        let allowed = |it: &S| self.0.iter().any(|own| **own == *essential(it.as_ref()));
        self.0.is_empty() || audiences.iter().any(allowed)
    }
}

fn essential(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// A place where requests carry tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Which place.
    pub place: Place,
    /// Whose tokens are looked for there; none of a provider without an issuer means anybody's.
    pub issuers: Vec<Option<Box<str>>>,
}

/// See [`Location`]. Envoy reads tokens in the reverse of this order, and the first bad one decides what is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `from_headers`: a header's values after a prefix, which may be empty and may have anything before it.
    Header(HeaderName, Box<str>),
    /// `from_params`: the first query parameter of this name.
    Parameter(Box<str>),
    /// `from_cookies`: the first cookie of this name.
    Cookie(Box<str>),
}

impl Location {
    /// Whether tokens of `issuer` are looked for here; an empty one means that the token names none.
    pub fn is_for(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|own| own.as_ref().is_none_or(|own| **own == *issuer))
    }

    /// The places of all of `locations`, each once and in order.
    pub fn merged<'a>(locations: impl Iterator<Item = &'a Self>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for location in locations {
            match all.iter_mut().find(|known| known.place == location.place) {
                Some(known) => known.issuers.extend_from_slice(&location.issuers),
                None => all.push(location.clone()),
            }
        }
        all.sort_by(|a, b| a.place.order().cmp(&b.place.order()));
        all
    }
}

impl Place {
    fn order(&self) -> (u8, &str, &str) {
        match self {
            Self::Header(name, prefix) => (0, name.as_str(), prefix),
            Self::Parameter(name) => (1, name, ""),
            Self::Cookie(name) => (2, name, ""),
        }
    }
}

impl Requirement {
    /// Calls `each` with every provider that it names.
    pub fn for_each_provider<'a>(&'a self, each: &mut dyn FnMut(&'a Arc<Provider>)) {
        match self {
            Self::Provider(provider, _) => each(provider),
            Self::Any(all, _) | Self::All(all) => {
                all.iter().for_each(|it| it.for_each_provider(each));
            }
            Self::Nothing | Self::AnyProvider(_) | Self::Told(_) => {}
        }
    }
}

impl JwtAuthn {
    /// The provider whose tokens have this issuer; empty if they name none.
    pub fn provider_of(&self, issuer: &str) -> Option<&Arc<Provider>> {
        let exact = |it: &&Arc<Provider>| it.issuer.as_deref() == Some(issuer);
        let any = |it: &&Arc<Provider>| it.issuer.is_none();
        self.providers.iter().find(exact).or_else(|| self.providers.iter().find(any))
    }

    /// The key sets that have to be fetched for it.
    pub fn remote_jwks(&self) -> impl Iterator<Item = &Arc<RemoteJwks>> {
        self.providers.iter().filter_map(|provider| match &provider.keys {
            KeySource::Local(_) => None,
            KeySource::Remote(remote) => Some(remote),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_and_slashes_make_no_audience() {
        let audiences = Audiences::new(&["https://a/".to_owned(), "b".to_owned()]);
        for allowed in ["a", "http://a", "a/", "b", "https://b/"] {
            assert!(audiences.allow(&["x", allowed]), "{allowed}");
        }
        for other in ["c", "a//", "ftp://a", ""] {
            assert!(!audiences.allow(&[other]), "{other}");
        }
        assert!(!audiences.allow::<&str>(&[]));
        assert!(Audiences::default().allow(&["x"]));
    }

    #[test]
    fn places_are_merged_with_whom_they_are_for() {
        let location =
            |place, issuer: Option<&str>| Location { place, issuers: vec![issuer.map(Into::into)] };
        let header = |prefix: &str| Place::Header(http::header::AUTHORIZATION, prefix.into());
        let all = [
            location(Place::Cookie("c".into()), None),
            location(header("Bearer "), Some("a")),
            location(Place::Parameter("p".into()), Some("b")),
            location(header("Bearer "), Some("b")),
            location(header(""), Some("b")),
        ];
        let merged = Location::merged(all.iter());
        let places: Vec<_> = merged.iter().map(|it| it.place.clone()).collect();
        assert_eq!(
            places,
            [
                header(""),
                header("Bearer "),
                Place::Parameter("p".into()),
                Place::Cookie("c".into())
            ]
        );
        assert!(merged[1].is_for("a") && merged[1].is_for("b") && !merged[1].is_for("c"));
        assert!(merged[3].is_for("c") && merged[3].is_for(""));
    }
}
