//! The running assembler: the start, then everything that can change the configuration.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xds::yaml::Error as Located;

use super::candidates::Candidates;
use super::startup::Startup;
use super::{Assembler, Publish};
use crate::call::Caller;
use crate::cluster::Clusters;
use crate::config::bootstrap::Node;
use crate::discovery::dns::Lookups;
use crate::discovery::file::watch::Watch;
use crate::discovery::streams::{Event, Streams};
use crate::snapshot::Snapshot;

/// Longest wait for the first answer to each name before the first snapshot is published without it.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// Longest wait for the secrets of this process's own agent, as Envoy waits for those of a server.
pub(super) const FIRST_SECRETS: Duration = Duration::from_secs(15);

impl Assembler {
    /// Publishes the first snapshot once names have had their time to resolve and management servers theirs to send
    /// what it needs, then every change of a watched file, every new answer, and whatever is sent. Returns only with
    /// an error.
    ///
    /// Until the first listeners are opened, what is published has clusters only, by which servers are reached.
    /// `warm` is given the first snapshot before it is published, and waited for; `ready` is called once listeners
    /// are open. `caller` reaches the servers, which are told that this is `node`.
    ///
    /// # Errors
    /// If the first snapshot cannot be published.
    pub async fn run(
        mut self,
        caller: Rc<Caller>,
        node: &Node,
        publish: &mut Publish<'_>,
        warm: impl AsyncFnOnce(Arc<Snapshot>),
        ready: impl FnOnce(),
    ) -> Result<std::convert::Infallible, Vec<Located>> {
        let resumed = self.start_from_disk(node);
        let mut watch = Watch::new();
        self.follow(&mut watch);
        let mut lookups = Lookups::new(self.stats.metrics());
        lookups.want(&self.linked.queries);
        lookups.first_answers(&mut self.found, FIRST_ANSWERS).await;
        self.first_secrets().await;
        // A first link with these answers: its clusters can be checked before anything is served.
        self.settle(Candidates::default(), None)?;
        warm(Arc::clone(&self.linked.snapshot)).await;
        let mut streams = Streams::new(caller, node, self.stats.metrics(), resumed);
        let mut startup = self.startup();
        let mut ready = Some(ready);
        self.withheld = !startup.advance(&self.state, Instant::now()) || self.knows_all();
        self.settle(Candidates::default(), Some(publish))?;
        loop {
            self.follow(&mut watch);
            lookups.want(&self.linked.queries);
            self.found.keep(&self.linked.queries);
            if startup.advance(&self.state, Instant::now())
                && let Some(ready) = ready.take()
            {
                if self.withheld {
                    lookups.first_answers(&mut self.found, FIRST_ANSWERS).await;
                    self.open_listeners(publish)?;
                }
                ready();
            }
            let needed = self.state.needed_and_all(startup.wants_listeners());
            streams.follow(self.state.bootstrap.config.ads.as_ref(), &needed, Instant::now());
            let own = Arc::clone(&self.state.own);
            tokio::select! {
                () = watch.changed() => self.refresh(publish),
                own = own.changed() => {
                    self.state.own = Arc::new(own);
                    self.publish(Candidates::default(), publish);
                }
                () = departure(self.live.as_deref()) => {
                    self.publish(Candidates::default(), publish);
                }
                event = lookups.event() => {
                    if lookups.take_all(event, &mut self.found) {
                        self.publish(Candidates::default(), publish);
                    }
                }
                event = streams.event() => match event {
                    Event::Update(server, update) => {
                        self.hear(&mut streams, &server, update, publish);
                    }
                    Event::Lapsed(server, lapses) => self.lapse(&server, lapses, publish),
                },
                () = startup.late() => {}
            }
        }
    }

    fn startup(&self) -> Startup {
        if self.knows_all() { Startup::over() } else { Startup::begin(&self.state, Instant::now()) }
    }

    /// Waits a while for what the agent is to obtain, if something cannot be served without it.
    async fn first_secrets(&mut self) {
        if self.linked.waiting.is_empty() {
            return;
        }
        let own = Arc::clone(&self.state.own);
        if let Ok(own) = tokio::time::timeout(FIRST_SECRETS, own.changed()).await {
            self.state.own = Arc::new(own);
        }
    }
}

/// Resolves when a host should be let go of that was kept for its health.
async fn departure(live: Option<&Clusters>) {
    match live {
        Some(clusters) => clusters.departure().await,
        None => std::future::pending().await,
    }
}
