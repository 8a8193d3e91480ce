//! Fetches the keys of token issuers: ahead of time or when a request wants them, over and over.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode, Uri};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::call::Caller;
use crate::config::jwt::jwks::Jwks;
use crate::config::jwt::{RemoteJwks, StatsScope};
use crate::jwt::remote::{RemoteKeys, Schedule};
use crate::net::body::RequestBody;
use crate::telemetry::metrics::{JwtAuthnStats, Metrics};
use crate::worker::Shards;

/// Longest key set that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// Who fetches, and counts it.
struct Fetcher {
    caller: Rc<Caller>,
    metrics: Arc<Metrics>,
    stats: Shards<JwtAuthnStats, StatsScope>,
}

/// Fetches the keys of all that come out of `sets`, for as long as somebody has them.
pub(super) async fn keep_fetching(
    mut sets: UnboundedReceiver<Weak<RemoteKeys>>,
    caller: Rc<Caller>,
    metrics: Arc<Metrics>,
) {
    let fetcher = Rc::new(Fetcher { caller, metrics, stats: Shards::default() });
    while let Some(keys) = sets.recv().await {
        let fetcher = Rc::clone(&fetcher);
        tokio::task::spawn_local(async move { fetcher.keep(&keys).await });
    }
}

impl Fetcher {
    async fn keep(&self, keys: &Weak<RemoteKeys>) {
        let mut schedule = Schedule::default();
        while let Some(set) = keys.upgrade() {
            let (wanted, config) = (set.wanted(), Arc::clone(&set.config));
            drop(set);
            if config.ahead.is_none() {
                wanted.notified().await;
            }
            let fetched = self.fetch(&config).await;
            let Some(set) = keys.upgrade() else { return };
            self.count(&set, fetched.is_ok());
            let (host, path) = (config.uri.host.to_str().unwrap_or_default(), &config.uri.path);
            let pause = schedule.after(fetched.is_ok(), &config, fastrand::f64());
            match &fetched {
                Ok(_) => tracing::debug!(host, path, ?pause, "keys of a token issuer fetched"),
                Err(error) => {
                    tracing::warn!(
                        host,
                        path,
                        error,
                        ?pause,
                        "cannot fetch the keys of a token issuer"
                    );
                }
            }
            set.finish(fetched.ok());
            drop(set);
            tokio::time::sleep(pause).await;
            keys.upgrade().iter().for_each(|set| set.expire());
        }
    }

    fn count(&self, set: &RemoteKeys, succeeded: bool) {
        for scope in set.scopes() {
            let make = || self.metrics.jwt_authn(&scope.manager, &scope.prefix);
            let stats = self.stats.get(&scope, make);
            let counter =
                if succeeded { &stats.jwks_fetch_success } else { &stats.jwks_fetch_failed };
            counter.inc();
        }
    }

    /// Fetches a key set, and again as often as is configured.
    async fn fetch(&self, config: &RemoteJwks) -> Result<Jwks, String> {
        let mut attempt = 0;
        loop {
            let result = self.fetch_once(config).await;
            attempt += 1;
            match config.retries {
                Some(retries) if result.is_err() && attempt <= retries.times => {
                    let pause: Duration = retries.backoff.wait(attempt, fastrand::f64());
                    tokio::time::sleep(pause).await;
                }
                _ => return result,
            }
        }
    }

    async fn fetch_once(&self, config: &RemoteJwks) -> Result<Jwks, String> {
        let uri = &config.uri;
        let mut request = Request::new(RequestBody::Empty);
        *request.uri_mut() = uri.path.parse::<Uri>().map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, uri.host.clone());
        let fetching = self.caller.fetch(&uri.cluster, request, uri.timeout, LONGEST);
        let response = fetching.await.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => Jwks::parse(response.body()),
            status => Err(format!("the answer is {status}")),
        }
    }
}
