//! Checks the tokens of one request against what it needs.

use std::rc::Rc;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::super::passage::Passage;
use crate::config::jwt::jwks::Jwks;
use crate::config::jwt::{
    Audiences, JwtAuthn, KeySource, Lenience, Location, Provider, Requirement,
};
use crate::jwt::token::Signed;
use crate::jwt::{Failure, ProviderState, Token, claim, extract, verify};
use crate::telemetry::metrics::JwtAuthnStats;

/// Where in the dynamic metadata of a request is what its tokens say.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// See the module.
pub(super) struct Check<'c, 'p, 'r> {
    config: &'c JwtAuthn,
    stats: &'c JwtAuthnStats,
    request: &'p mut Passage<'r>,
    /// In seconds since 1970.
    now: u64,
    /// What becomes metadata.
    said: Map<String, Value>,
    /// Whether a token wants the route to be found anew.
    clears_route: bool,
}

impl<'c, 'p, 'r> Check<'c, 'p, 'r> {
    pub(super) fn new(
        config: &'c JwtAuthn,
        stats: &'c JwtAuthnStats,
        request: &'p mut Passage<'r>,
    ) -> Self {
        let now = request.stream.start.wall.duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |age| age.as_secs());
        Self { config, stats, request, now, said: Map::new(), clears_route: false }
    }

    /// Checks the whole of what a request needs.
    ///
    /// # Errors
    /// Why it is not let through.
    pub(super) async fn run(mut self, requirement: &Requirement) -> Result<(), Failure> {
        // What a provider says in headers nobody else does, even if its tokens are not asked for in the end.
        requirement.for_each_provider(&mut |provider| self.take_back(provider));
        let verdict = self.check(requirement).await;
        if !self.said.is_empty() {
            self.request.stream.dynamic_mut().merge(NAMESPACE, self.said);
        }
        if self.clears_route && verdict.is_ok() {
            self.request.find_route_again();
        }
        verdict
    }

    async fn check(&mut self, requirement: &Requirement) -> Result<(), Failure> {
        match requirement {
            Requirement::Nothing => Ok(()),
            Requirement::Provider(provider, audiences) => {
                self.provider(provider, audiences.as_ref()).await
            }
            Requirement::Any(all, lenience) => Box::pin(self.any(all, *lenience)).await,
            Requirement::All(all) => Box::pin(self.all(all)).await,
            Requirement::AnyProvider(Lenience::Failed) => {
                let _ = self.any_provider(Lenience::Failed).await;
                Ok(())
            }
            Requirement::AnyProvider(lenience) => self.any_provider(*lenience).await,
            Requirement::Told(header) => {
                let verdict = self.any_provider(Lenience::Failed).await;
                if let (Err(_), Some(name)) = (verdict, header) {
                    let head = self.request.head_mut();
                    head.headers.insert(name, HeaderValue::from_static("false"));
                }
                Ok(())
            }
        }
    }

    async fn all(&mut self, all: &[Requirement]) -> Result<(), Failure> {
        for requirement in all {
            self.check(requirement).await?;
        }
        Ok(())
    }

    async fn any(&mut self, all: &[Requirement], lenience: Lenience) -> Result<(), Failure> {
        let mut worst = Failure::Missing;
        for requirement in all {
            let Err(failure) = self.check(requirement).await else { return Ok(()) };
            // No token says less than one of somebody else, and that less than a bad one.
            let is_plain = matches!(failure, Failure::Missing | Failure::UnknownIssuer);
            if !is_plain || worst == Failure::Missing {
                worst = failure;
            }
        }
        match lenience {
            Lenience::Failed => Ok(()),
            Lenience::Missing if worst == Failure::Missing => Ok(()),
            Lenience::None | Lenience::Missing => Err(worst),
        }
    }

    /// All tokens at the places of `provider` must be good ones of its.
    async fn provider(
        &mut self,
        provider: &Arc<Provider>,
        audiences: Option<&Audiences>,
    ) -> Result<(), Failure> {
        self.take_back(provider);
        let head = self.request.head();
        let found = extract::tokens(&provider.locations, &head.headers, &head.path);
        if found.is_empty() {
            return Err(self.note(None, Failure::Missing));
        }
        for (text, location) in found.iter().rev() {
            self.token(text, location, Some(provider), audiences).await?;
        }
        Ok(())
    }

    /// All tokens at the places of all providers must be good. If bad ones are let through, the others are looked at all
    /// the same.
    async fn any_provider(&mut self, lenience: Lenience) -> Result<(), Failure> {
        let config = self.config;
        config.providers.iter().for_each(|provider| self.take_back(provider));
        let head = self.request.head();
        let found = extract::tokens(&config.locations, &head.headers, &head.path);
        let mut verdict = Ok(());
        for (text, location) in found.iter().rev() {
            if let Err(failure) = self.token(text, location, None, None).await {
                verdict = Err(failure);
                if lenience != Lenience::Failed {
                    break;
                }
            }
        }
        verdict
    }

    /// Checks one token, of `known` if that is to be the provider.
    async fn token(
        &mut self,
        text: &str,
        location: &Location,
        known: Option<&Arc<Provider>>,
        audiences: Option<&Audiences>,
    ) -> Result<(), Failure> {
        let states = &self.request.stream.connection.worker;
        let state = known.map(|provider| (provider, states.issuers.state(provider)));
        let remembered = state.as_ref().and_then(|(provider, state)| {
            let keys = current_keys(provider, state)?;
            state.tokens.borrow_mut().get(text, &keys)
        });
        if known.is_some() {
            let hit = remembered.is_some();
            let counter = if hit { &self.stats.jwt_cache_hit } else { &self.stats.jwt_cache_miss };
            counter.inc();
        }
        let (token, signed) = match remembered {
            Some(token) => (token, None),
            None => match Signed::parse(text) {
                Ok(signed) => (Rc::clone(&signed.token), Some(signed)),
                Err(failure) => return Err(self.note(known, failure)),
            },
        };
        let provider = known.or_else(|| self.config.provider_of(&token.issuer));
        let Some(provider) = provider.filter(|_| location.is_for(&token.issuer)) else {
            return Err(self.note(known, Failure::UnknownIssuer));
        };
        let mut result = self.claims(provider, &token, audiences);
        if let (Ok(()), Some(signed)) = (result, signed) {
            let state = self.request.stream.connection.worker.issuers.state(provider);
            result = verified(provider, &state, text, &signed).await;
        }
        match result {
            Ok(()) => {
                self.accept(provider, &token, location);
                Ok(())
            }
            Err(failure) => Err(self.note(Some(provider), failure)),
        }
    }

    /// Checks all but the signature.
    fn claims(
        &self,
        provider: &Provider,
        token: &Token,
        audiences: Option<&Audiences>,
    ) -> Result<(), Failure> {
        token.check_time(self.now, provider.clock_skew)?;
        if !audiences.unwrap_or(&provider.audiences).allow(&token.audiences) {
            return Err(Failure::AudienceNotAllowed);
        }
        token.check_subject(provider, self.now)
    }

    /// Passes on what a good token says, and takes the token out of the request.
    fn accept(&mut self, provider: &Provider, token: &Token, location: &Location) {
        let mut has_headers = false;
        if let Some((name, is_padded)) = &provider.payload_header {
            let text = &token.payload_text;
            let padding =
                if *is_padded { "=".repeat((4 - text.len() % 4) % 4) } else { String::new() };
            self.say(name, format!("{text}{padding}"));
        }
        for (path, name) in &provider.claim_headers {
            if let Some(value) = claim::header_value(&token.payload, path) {
                self.say(name, value);
                has_headers = true;
            }
        }
        if !provider.forward {
            let head = self.request.head_mut();
            extract::remove(&location.place, &mut head.headers, &mut head.path);
        }
        if let Some(key) = &provider.header_key {
            self.said.insert(key.to_string(), token.header.clone().into());
        }
        if let Some(key) = &provider.payload_key {
            let claims = claim::normalized(&token.payload, &provider.lists);
            self.said.insert(key.to_string(), claims.into());
        }
        let says = has_headers || provider.payload_key.is_some();
        self.clears_route |= provider.clear_route && says;
    }

    fn say(&mut self, name: &HeaderName, value: String) {
        // A claim with a line break cannot become a header.
        if let Ok(value) = HeaderValue::try_from(value) {
            self.request.head_mut().headers.append(name, value);
        }
    }

    /// Removes headers of the client's by which `provider` is to speak.
    fn take_back(&mut self, provider: &Provider) {
        let claims = provider.claim_headers.iter().map(|(_, name)| name);
        for name in provider.payload_header.iter().map(|(name, _)| name).chain(claims) {
            if self.request.head().headers.contains_key(name) {
                self.request.head_mut().headers.remove(name);
            }
        }
    }

    /// Notes why a token is bad, if its provider wants that; without one, if there is only one.
    fn note(&mut self, provider: Option<&Arc<Provider>>, failure: Failure) -> Failure {
        let provider = provider.or(match self.config.providers.as_slice() {
            [only] => Some(only),
            _ => None,
        });
        if let Some(key) = provider.and_then(|it| it.failure_key.as_ref()) {
            let why = json!({"code": failure.code(), "message": failure.text()});
            self.said.insert(key.to_string(), why);
        }
        failure
    }
}

/// The keys of a provider, if they are there.
fn current_keys(provider: &Provider, state: &ProviderState) -> Option<Arc<Jwks>> {
    match &provider.keys {
        KeySource::Local(keys) => Some(Arc::clone(keys)),
        KeySource::Remote(_) => state.remote.as_ref()?.current(),
    }
}

/// Checks a signature, unless that has been done of late.
async fn verified(
    provider: &Provider,
    state: &ProviderState,
    text: &str,
    signed: &Signed,
) -> Result<(), Failure> {
    let keys = match &state.remote {
        Some(remote) => remote.wait().await,
        None => current_keys(provider, state),
    };
    let keys = keys.ok_or(Failure::Fetch)?;
    if state.tokens.borrow_mut().get(text, &keys).is_none() {
        verify::verify(signed, &keys)?;
        state.tokens.borrow_mut().insert(text, Rc::clone(&signed.token), keys);
    }
    Ok(())
}
