//! Requests that keep coming while something happens to what the proxy needs, and whether each was answered as it may
//! be at that time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::PATIENCE;
use crate::client::{Call, Client, Connection};
use crate::reply::Reply;

/// Users who each send one request after the other; they go with this.
#[derive(Debug)]
pub struct Traffic {
    answered: Arc<Mutex<Vec<Answered>>>,
    phases: Vec<Phase>,
    users: JoinSet<()>,
}

/// Between two requests of one user, if the proxy is quick.
const PAUSE: Duration = Duration::from_millis(25);

#[derive(Debug)]
struct Phase {
    begin: Instant,
    may_be: Vec<String>,
}

#[derive(Debug, Clone)]
struct Answered {
    begin: Instant,
    end: Instant,
    verdict: String,
}

/// What became of the requests that began within one phase.
#[derive(Debug, Clone)]
pub struct Figures {
    /// How many there were.
    pub requests: usize,
    /// The time that half of them did not exceed.
    pub median: Duration,
    /// The time that 99 % of them did not exceed.
    pub p99: Duration,
}

impl Traffic {
    /// One user for each of `clients`, who asks what `ask` makes on a connection that stays open; `judge` says what an
    /// answer comes to. One that stays away comes to `none`.
    pub fn of(
        clients: impl IntoIterator<Item = Client>,
        ask: impl Fn(&Client) -> Call + Clone + Send + 'static,
        judge: fn(&Reply) -> String,
    ) -> Self {
        Self::start(clients, true, ask, judge)
    }

    /// As [`of`](Self::of), with a new connection for each request.
    pub fn of_connections(
        clients: impl IntoIterator<Item = Client>,
        ask: impl Fn(&Client) -> Call + Clone + Send + 'static,
        judge: fn(&Reply) -> String,
    ) -> Self {
        Self::start(clients, false, ask, judge)
    }

    fn start(
        clients: impl IntoIterator<Item = Client>,
        keeps: bool,
        ask: impl Fn(&Client) -> Call + Clone + Send + 'static,
        judge: fn(&Reply) -> String,
    ) -> Self {
        let mut traffic =
            Self { answered: Arc::default(), phases: Vec::new(), users: JoinSet::new() };
        for client in clients {
            let user = User { client, keeps, connection: None };
            let answered = Arc::clone(&traffic.answered);
            traffic.users.spawn(user.ask_on(ask.clone(), judge, answered));
        }
        traffic
    }

    /// From now on, each answer is one of these. A request that is answered later than this may still be answered as
    /// it might have been before.
    pub fn may_be(&mut self, verdicts: &[&str]) {
        let may_be = verdicts.iter().map(|&verdict| verdict.to_owned()).collect();
        self.phases.push(Phase { begin: Instant::now(), may_be });
    }

    /// Waits until as many requests as that have begun and ended since the last [`may_be`](Self::may_be), and at
    /// least so long.
    pub async fn until(&self, requests: usize, at_least: Duration) -> Figures {
        let since = self.phases.last().expect("a phase").begin;
        sleep(at_least).await;
        let what = format!("{requests} requests");
        let mut times: Vec<_> = self
            .since(since, &what, |answered| answered.len() >= requests)
            .await
            .iter()
            .map(|it| it.end - it.begin)
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Figures { requests: times.len(), median: at(50), p99: at(99) }
    }

    /// Waits until the last `requests` of those that have begun since the last [`may_be`](Self::may_be) came to
    /// `verdict`, and says how long the first of them took to come.
    pub async fn settled(&self, requests: usize, verdict: &str) -> Duration {
        let since = self.phases.last().expect("a phase").begin;
        let last = |answered: &[Answered]| {
            let (_, last) = answered.split_at_checked(answered.len().checked_sub(requests)?)?;
            last.iter().all(|it| it.verdict == verdict).then(|| last[0].begin - since)
        };
        let settled = self.since(since, verdict, |answered| last(answered).is_some()).await;
        last(&settled).expect("just seen")
    }

    /// The answers of requests that began later than `since`, in the order in which they began, once they are
    /// `enough`.
    async fn since(
        &self,
        since: Instant,
        what: &str,
        enough: impl Fn(&[Answered]) -> bool,
    ) -> Vec<Answered> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answered = self.answered.lock().clone();
            answered.retain(|it| it.begin > since);
            answered.sort_unstable_by_key(|it| it.begin);
            if enough(&answered) {
                return answered;
            }
            let verdicts = counts(&answered);
            assert!(Instant::now() < deadline, "waited in vain for {what}: {verdicts:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it; fails if any answer was not one of those that it may have been at its time.
    pub async fn end(mut self) {
        if let Some(ended) = self.users.try_join_next() {
            ended.expect("users go on for ever");
        }
        self.users.shutdown().await;
        let answered = std::mem::take(&mut *self.answered.lock());
        let is_wrong = |it: &&Answered| {
            let ends = self.phases.iter().skip(1).map(|phase| Some(phase.begin)).chain([None]);
            let within = self.phases.iter().zip(ends).filter(|(phase, end)| {
                phase.begin <= it.end && end.is_none_or(|end| end >= it.begin)
            });
            !within.into_iter().any(|(phase, _)| phase.may_be.contains(&it.verdict))
        };
        let wrong: Vec<_> = answered.iter().filter(is_wrong).cloned().collect();
        let verdicts = counts(&answered);
        assert!(wrong.is_empty(), "{:?} of {verdicts:?}: {:#?}", counts(&wrong), self.phases);
    }
}

fn counts(answered: &[Answered]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for it in answered {
        *counts.entry(it.verdict.as_str()).or_default() += 1;
    }
    counts
}

struct User {
    client: Client,
    keeps: bool,
    connection: Option<Connection>,
}

impl User {
    async fn ask_on(
        mut self,
        ask: impl Fn(&Client) -> Call,
        judge: fn(&Reply) -> String,
        answered: Arc<Mutex<Vec<Answered>>>,
    ) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let begin = Instant::now();
            let reply = self.send(ask(&self.client)).await;
            let verdict = reply.map_or_else(|_| "none".to_owned(), |reply| judge(&reply));
            answered.lock().push(Answered { begin, end: Instant::now(), verdict });
        }
    }

    async fn send(&mut self, call: Call) -> Result<Reply> {
        let mut open = match self.connection.take() {
            Some(open) if !open.is_closed() => open,
            _ => self.client.connect().await?,
        };
        let reply = open.send(call).await?;
        self.connection = self.keeps.then_some(open);
        Ok(reply)
    }
}
