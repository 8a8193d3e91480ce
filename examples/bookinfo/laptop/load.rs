//! Visitors: a gentle load on the page, so that there is something to see.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{COOKIE, HOST, HeaderMap, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::services::outbound::Outbound;

/// How long a visitor waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many wait at the same time, at most.
const MOST: usize = 200;
/// One of so many has logged in as jason.
const JASON: u64 = 4;

/// What became of the visits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    /// Pages that came with status 200.
    pub(super) good: u64,
    /// All others, and those that did not come.
    pub(super) bad: u64,
}

/// Visitors to be.
#[derive(Debug)]
pub(super) struct Load {
    port: u16,
    rate: f64,
    account: Rc<Cell<Account>>,
}

impl Load {
    /// So many per second for the gateway at this port; of none, none come.
    pub(super) fn new(port: u16, rate: f64) -> Self {
        Self { port, rate, account: Rc::default() }
    }

    /// What becomes of them.
    pub(super) fn account(&self) -> Rc<Cell<Account>> {
        Rc::clone(&self.account)
    }

    /// Lets them come, for as long as this is polled.
    pub(super) async fn run(&self) {
        if self.rate <= 0.0 {
            return;
        }
        let url: Rc<str> = format!("http://127.0.0.1:{}/productpage", self.port).into();
        let gateway = Rc::new(Outbound::direct());
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / self.rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let mut visits = JoinSet::new();
                for number in 0.. {
                    ticks.tick().await;
                    while visits.try_join_next().is_some() {}
                    if visits.len() >= MOST {
                        visits.join_next().await;
                    }
                    let (url, gateway) = (Rc::clone(&url), Rc::clone(&gateway));
                    let account = Rc::clone(&self.account);
                    visits.spawn_local(async move {
                        let page = gateway.fetch(&url, visitor(number), PATIENCE).await;
                        let is_good = page.is_ok_and(|(status, _)| status == StatusCode::OK);
                        let Account { good, bad } = account.get();
                        account.set(Account {
                            good: good + u64::from(is_good),
                            bad: bad + u64::from(!is_good),
                        });
                    });
                }
            })
            .await;
    }
}

fn visitor(number: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("bookinfo.example"));
    if number.is_multiple_of(JASON) {
        headers.insert(COOKIE, HeaderValue::from_static("session=jason"));
    }
    headers
}
