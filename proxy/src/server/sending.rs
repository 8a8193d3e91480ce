//! What workers tell collectors: sent in batches, from the control runtime, over clusters like any request.
//!
//! Each collector has a bounded queue and a few reports on their way at most. One that is slow or dead costs what it is
//! not told, and nothing else.

pub(super) mod otlp;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// What sends to the collectors of one kind.
#[derive(Debug)]
pub(super) struct Sending {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sending {
    /// Has `send` send what is in each of the outboxes, until nobody puts anything in any more.
    pub(super) fn start<O: 'static, S: Future<Output = ()> + 'static>(
        mut outboxes: UnboundedReceiver<O>,
        send: impl Fn(O) -> S + 'static,
    ) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            let mut sending = JoinSet::new();
            loop {
                tokio::select! {
                    outbox = outboxes.recv() => match outbox {
                        Some(outbox) => drop(sending.spawn_local(send(outbox))),
                        None => break,
                    },
                    _ = &mut stopped => break,
                    // Those that are over need no place any more.
                    Some(_) = sending.join_next() => {}
                }
            }
            while sending.join_next().await.is_some() {}
        });
        Self { stop, task }
    }

    /// Sends what is left, when nobody makes any more, for up to `timeout`.
    pub(super) async fn end(self, timeout: Duration) {
        drop(self.stop);
        if tokio::time::timeout(timeout, self.task).await.is_err() {
            tracing::debug!("the last reports could not be sent in time");
        }
    }
}

/// One that is told something.
pub(super) trait Collector: 'static {
    /// What it is told in batches.
    type Item: 'static;

    /// Most items of one report.
    const AT_ONCE: usize;

    /// Most reports on their way.
    fn reports(&self) -> u32;

    /// How often what waits is sent, however little it is.
    fn interval(&self) -> Duration;

    /// How large an item is, in the measure of [`enough`](Self::enough).
    fn size(item: &Self::Item) -> usize;

    /// What is so large together is sent at once.
    fn enough(&self) -> usize;

    /// It was time to send what waits.
    fn timer_flushed(&self) {}

    /// Sends one report; whether it arrived or not, it is over then.
    fn report(&self, items: Vec<Self::Item>) -> impl Future<Output = ()>;

    /// There is nothing more to be sent.
    fn finish(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

/// Sends `items` to `collector` until nobody makes any more.
pub(super) async fn send_all<C: Collector>(collector: C, mut items: Receiver<C::Item>) {
    let collector = Rc::new(collector);
    let places = Arc::new(Semaphore::new(collector.reports() as usize));
    let interval = collector.interval();
    let mut timer = interval_at(Instant::now() + interval, interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    let (mut size, mut due) = (0, false);
    loop {
        let is_full = size >= collector.enough() || waiting.len() == C::AT_ONCE;
        let is_full = is_full && !waiting.is_empty();
        let goes = is_full || due && !waiting.is_empty();
        tokio::select! {
            place = Arc::clone(&places).acquire_owned(), if goes => {
                let Ok(place) = place else { return };
                dispatch(&collector, std::mem::take(&mut waiting), place);
                (size, due) = (0, false);
            }
            item = items.recv(), if !is_full => match item {
                Some(item) => {
                    size += C::size(&item);
                    waiting.push(item);
                }
                None => break,
            },
            _ = timer.tick() => {
                collector.timer_flushed();
                due = true;
            }
        }
    }
    if !waiting.is_empty()
        && let Ok(place) = Arc::clone(&places).acquire_owned().await
    {
        dispatch(&collector, waiting, place);
    }
    // All reports have arrived when all places are free.
    drop(places.acquire_many(collector.reports()).await);
    collector.finish().await;
}

/// Sends one report, which holds `place` until it has arrived.
fn dispatch<C: Collector>(collector: &Rc<C>, items: Vec<C::Item>, place: OwnedSemaphorePermit) {
    let collector = Rc::clone(collector);
    tokio::task::spawn_local(async move {
        collector.report(items).await;
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    use super::*;

    /// Notes how many numbers came at once.
    struct Noting {
        enough: usize,
        noted: Rc<RefCell<Vec<usize>>>,
    }

    impl Collector for Noting {
        type Item = usize;
        const AT_ONCE: usize = 8;

        fn reports(&self) -> u32 {
            1
        }

        fn interval(&self) -> Duration {
            Duration::from_millis(10)
        }

        fn size(item: &usize) -> usize {
            *item
        }

        fn enough(&self) -> usize {
            self.enough
        }

        async fn report(&self, items: Vec<usize>) {
            self.noted.borrow_mut().push(items.len());
        }

        async fn finish(&self) {
            self.noted.borrow_mut().push(0);
        }
    }

    /// What is noted of `items`; if `each` is to be sent before the next one comes.
    fn sent(enough: usize, items: &[usize], each: bool) -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let noted = Rc::new(RefCell::default());
        let collector = Noting { enough, noted: Rc::clone(&noted) };
        let (queue, outbox) = mpsc::channel(64);
        LocalSet::new().block_on(&runtime, async {
            let sending = tokio::task::spawn_local(send_all(collector, outbox));
            for (count, item) in (1..).zip(items) {
                queue.send(*item).await.unwrap();
                while each && noted.borrow().len() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            drop(queue);
            sending.await.unwrap();
        });
        noted.take()
    }

    #[test]
    fn a_batch_goes_when_it_is_large_enough_or_its_time_has_come() {
        assert_eq!(sent(0, &[1, 1], false), [1, 1, 0]);
        assert_eq!(sent(usize::MAX, &[1, 1], true), [1, 1, 0]);
        assert_eq!(sent(10, &[], false), [0]);
        let batches = sent(10, &[4, 4, 4, 4], false);
        assert!(batches.iter().all(|count| *count <= 3), "{batches:?}");
        let batches = sent(usize::MAX, &[1; 20], false);
        assert!(batches.iter().all(|count| *count <= Noting::AT_ONCE), "{batches:?}");
        assert_eq!(batches.iter().sum::<usize>(), 20);
        assert_eq!(batches.last(), Some(&0));
    }
}
