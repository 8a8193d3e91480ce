//! Stateful sessions: the HTTP filter, and what routes say to it.

use http::header::HeaderName;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use xds::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute,
};
use xds::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use xds::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use xds::envoy::r#type::http::v3::{Cookie, CookieAttribute};

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::hash_policy::sendable;
use super::value::{header_name, non_empty, optional_duration};
use crate::config::Name;
use crate::config::http_filter::{self, SessionCookie, SessionScope, SessionState};

/// The filter of a connection manager with this `stat_prefix`.
pub(super) fn filter(
    proto: &StatefulSession,
    stat_prefix: &Name,
) -> Result<http_filter::StatefulSession> {
    let StatefulSession { session_state, strict, stat_prefix: own } = proto;
    Ok(http_filter::StatefulSession {
        state: optional("session_state", session_state, state)?,
        strict: *strict,
        stats: (!own.is_empty())
            .then(|| SessionScope { manager: stat_prefix.clone(), prefix: own.as_str().into() }),
    })
}

/// What a route says to the filter; none means no sessions.
pub(super) fn route(
    proto: &StatefulSessionPerRoute,
) -> Result<Option<http_filter::StatefulSession>> {
    let StatefulSessionPerRoute { r#override } = proto;
    match required("disabled or stateful_session", r#override)? {
        Override::Disabled(true) => Ok(None),
        Override::Disabled(false) => refuse("disabled", "must be true"),
        Override::StatefulSession(proto) => {
            filter(proto, &"".into()).at("stateful_session").map(Some)
        }
    }
}

fn state(proto: &TypedExtensionConfig) -> Result<SessionState> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = required("typed_config", typed_config)?;
    if let Some(CookieBasedSessionState { cookie: proto }) = unpack(any).at("typed_config")? {
        let proto = required("typed_config.cookie", &proto)?;
        return Ok(SessionState::Cookie(cookie(proto).at("typed_config.cookie")?));
    }
    if let Some(HeaderBasedSessionState { name }) = unpack(any).at("typed_config")? {
        return Ok(SessionState::Header(session_header(&name).at("typed_config.name")?));
    }
    unsupported(any).at("typed_config")
}

fn session_header(name: &str) -> Result<HeaderName> {
    header_name(non_empty("", name)?)
}

fn cookie(proto: &Cookie) -> Result<SessionCookie> {
    let Cookie { name, ttl, path, attributes } = proto;
    Ok(SessionCookie {
        name: sendable("name", non_empty("name", name)?)?,
        ttl: optional_duration("ttl", ttl.as_ref())?.map_or(0, |ttl| ttl.as_secs()),
        path: sendable("path", path)?,
        attributes: each("attributes", attributes, |CookieAttribute { name, value }| {
            Ok((sendable("name", non_empty("name", name)?)?, sendable("value", value)?))
        })?,
    })
}
