//! What is waited for before listeners are opened for the first time, in Envoy's order: clusters with their endpoints,
//! then listeners with their tables and secrets. Each wait is over when its `initial_fetch_timeout` is.

use std::time::Instant;

use super::asked::Needed;
use super::state::State;
use crate::config::source::ConfigSource;
use crate::discovery::file::Kind;
use crate::discovery::served::ServedKey;

/// How far the start has come.
pub(super) struct Startup {
    phase: Phase,
    /// When the list of all clusters, or listeners, is waited for no longer; none: never, or it is not waited for.
    until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Clusters,
    Listeners,
    Over,
}

impl Startup {
    /// Begins to wait for clusters.
    pub(super) fn begin(state: &State, now: Instant) -> Self {
        Self { phase: Phase::Clusters, until: limit(&state.bootstrap.config.cds, now) }
    }

    /// Waits for nothing.
    pub(super) fn over() -> Self {
        Self { phase: Phase::Over, until: None }
    }

    /// Goes on as far as what is there allows; whether all is there that is waited for.
    pub(super) fn advance(&mut self, state: &State, now: Instant) -> bool {
        let config = &state.bootstrap.config;
        let is_late = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        if self.phase == Phase::Clusters
            && (is_late(self.until) || state.has_heard(Kind::Cluster, &config.cds))
            && state.are_warm(Kind::Cluster)
        {
            *self = Self { phase: Phase::Listeners, until: limit(&config.lds, now) };
        }
        if self.phase == Phase::Listeners
            && (is_late(self.until) || state.has_heard(Kind::Listener, &config.lds))
            && state.are_warm(Kind::Listener)
        {
            *self = Self { phase: Phase::Over, until: None };
        }
        self.phase == Phase::Over
    }

    /// Whether listeners are asked for yet.
    pub(super) fn wants_listeners(&self) -> bool {
        self.phase != Phase::Clusters
    }

    /// Comes back when something is waited for no longer.
    pub(super) async fn late(&mut self) {
        match self.until {
            Some(until) if until > Instant::now() => tokio::time::sleep_until(until.into()).await,
            _ => std::future::pending().await,
        }
    }
}

fn limit(source: &Option<ConfigSource>, now: Instant) -> Option<Instant> {
    let timeout = source.as_ref()?.server()?.fetch_timeout;
    (!timeout.is_zero()).then(|| now + timeout)
}

impl State {
    /// Whether there is nothing, or nothing new, to be heard of all resources of a kind.
    fn has_heard(&self, kind: Kind, source: &Option<ConfigSource>) -> bool {
        let Some(source) = source.as_ref().and_then(ConfigSource::server) else { return true };
        let key = ServedKey { kind, server: source.server.clone() };
        self.served.get(&key).is_some_and(|set| set.heard)
    }

    /// The same of all clusters and all listeners.
    pub(super) fn has_heard_of_all(&self) -> bool {
        let config = &self.bootstrap.config;
        self.has_heard(Kind::Cluster, &config.cds) && self.has_heard(Kind::Listener, &config.lds)
    }

    /// What is needed of management servers, and all clusters and listeners where these come from one.
    pub(super) fn needed_and_all(&self, listeners: bool) -> Needed {
        let mut needed = self.needed();
        let config = &self.bootstrap.config;
        let lds = config.lds.as_ref().filter(|_| listeners);
        for (kind, source) in [(Kind::Cluster, config.cds.as_ref()), (Kind::Listener, lds)] {
            if let Some(source) = source.and_then(ConfigSource::server) {
                let key = ServedKey { kind, server: source.server.clone() };
                let all = needed.entry(key).or_default();
                all.insert(xds::subscription::WILDCARD.into(), source.fetch_timeout);
            }
        }
        needed
    }
}
