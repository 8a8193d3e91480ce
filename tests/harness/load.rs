//! A steady stream of requests over persistent connections, and an account of every one of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{Call, Client, Connection};

/// A load under construction.
#[derive(Debug, Clone)]
pub struct Load {
    client: Client,
    rate: u32,
    connections: u32,
    duration: Duration,
}

/// What became of the requests of one load.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses by the `x-backend` header.
    pub backends: BTreeMap<String, u64>,
    /// Requests without a complete response, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Connections that ended while the load still used them.
    pub connections_lost: u64,
}

impl Load {
    /// Ten requests per second over one connection of `client` for one second, unless said otherwise.
    pub fn on(client: Client) -> Self {
        Self { client, rate: 10, connections: 1, duration: Duration::from_secs(1) }
    }

    /// Requests per second over all connections; a proxy that cannot keep up gets fewer.
    #[must_use]
    pub fn per_second(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    /// Number of connections.
    #[must_use]
    pub fn over(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// How long.
    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Sends what `call` makes until the time is over.
    pub async fn run(self, call: impl Fn(&Client) -> Call + Clone + Send + 'static) -> Account {
        let mut users = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            users.spawn(self.clone().one_user(call.clone()));
        }
        let mut account = Account::default();
        while let Some(part) = users.join_next().await {
            account.add(part.expect("a load task"));
        }
        account
    }

    async fn one_user(self, call: impl Fn(&Client) -> Call) -> Account {
        let mut account = Account::default();
        let mut connection: Option<Connection> = None;
        let mut ticks =
            tokio::time::interval(Duration::from_secs(1) * self.connections / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = Instant::now() + self.duration;
        while Instant::now() < end {
            ticks.tick().await;
            let mut open = match connection.take() {
                Some(open) if !open.is_closed() => open,
                previous => {
                    account.connections_lost += u64::from(previous.is_some());
                    match self.client.connect().await {
                        Ok(open) => open,
                        Err(error) => {
                            account.failed(&error);
                            continue;
                        }
                    }
                }
            };
            match open.send(call(&self.client)).await {
                Ok(reply) => account.answered(reply.status, reply.header("x-backend")),
                Err(error) => account.failed(&error),
            }
            connection = Some(open);
        }
        account
    }
}

impl Account {
    /// Number of requests.
    pub fn total(&self) -> u64 {
        self.statuses.values().chain(self.failures.values()).sum()
    }

    /// Fails unless every request was answered with 200 and no connection was lost.
    pub fn assert_flawless(&self) {
        let good = self.statuses.get(&200).copied().unwrap_or(0);
        assert!(good > 0 && good == self.total() && self.connections_lost == 0, "{self:#?}");
    }

    fn answered(&mut self, status: u16, backend: Option<String>) {
        *self.statuses.entry(status).or_default() += 1;
        if let Some(backend) = backend {
            *self.backends.entry(backend).or_default() += 1;
        }
    }

    fn failed(&mut self, error: &anyhow::Error) {
        *self.failures.entry(format!("{error:#}")).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (backend, count) in other.backends {
            *self.backends.entry(backend).or_default() += count;
        }
        for (reason, count) in other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
        self.connections_lost += other.connections_lost;
    }
}
