//! What became of each mesh that was published: who has it, after which time, and what that took. One line each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::ControlPlane;
use super::world::World;

/// As many are remembered.
const REMEMBERED: usize = 100;
/// Proxies that take longer are named.
const SLOW: Duration = Duration::from_secs(10);
/// As many of them.
const NAMED: usize = 5;

/// A mesh on its way to the proxies.
#[derive(Debug, Clone)]
pub struct Push {
    /// Which mesh.
    pub number: u64,
    /// When it was published.
    pub at: SystemTime,
    /// Objects in it.
    pub objects: usize,
    /// Proxies that are connected.
    pub proxies: usize,
    /// Proxies that have accepted all of it.
    pub settled: usize,
    /// From the first change until every proxy had it; none if that has not come.
    pub took: Option<Duration>,
    /// Responses that were sent meanwhile.
    pub responses: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The last ones, the newest first.
#[derive(Debug, Default)]
pub struct Pushes(Mutex<VecDeque<Push>>);

impl Pushes {
    /// The last ones, the newest first.
    pub fn recent(&self) -> Vec<Push> {
        self.0.lock().iter().cloned().collect()
    }

    fn begin(&self, push: Push) {
        let mut pushes = self.0.lock();
        pushes.push_front(push);
        pushes.truncate(REMEMBERED);
    }

    fn update(&self, number: u64, change: impl FnOnce(&mut Push)) {
        let mut pushes = self.0.lock();
        if let Some(push) = pushes.iter_mut().find(|push| push.number == number) {
            change(push);
        }
    }
}

/// Follows every mesh that is published, until the next one or until every proxy has it.
pub async fn follow(plane: Arc<ControlPlane>) {
    let mut worlds = plane.worlds.subscribe();
    // One may have been published before anyone looked.
    worlds.mark_changed();
    while worlds.changed().await.is_ok() {
        let world = Arc::clone(&worlds.borrow_and_update());
        if world.number == 0 {
            continue;
        }
        tokio::select! {
            () = arrival(&plane, &world) => {}
            changed = worlds.changed() => {
                if changed.is_err() {
                    return;
                }
                worlds.mark_changed();
            }
        }
    }
}

/// Until all proxies have accepted a mesh.
async fn arrival(plane: &ControlPlane, world: &World) {
    let mut news = plane.fleet.news();
    let before = plane.fleet.sent();
    let number = world.number;
    let objects = world.mesh.objects().count();
    let (proxies, settled) = plane.fleet.settled(number);
    let (at, took) = (world.at, None);
    plane.pushes.begin(Push {
        number,
        at,
        objects,
        proxies,
        settled,
        took,
        responses: 0,
        bytes: 0,
    });
    let slow = sleep(SLOW);
    tokio::pin!(slow);
    let mut told_of_slow = false;
    loop {
        let (proxies, settled) = plane.fleet.settled(number);
        let after = plane.fleet.sent();
        let (responses, bytes) = (after.0 - before.0, after.1 - before.1);
        let done = proxies == settled;
        let took = done.then(|| Instant::now().duration_since(world.since));
        plane.pushes.update(number, |push| {
            *push = Push { proxies, settled, responses, bytes, took, ..push.clone() };
        });
        if let Some(took) = took {
            tracing::info!(
                "mesh {number}: {settled} of {proxies} proxies have it after {:.2} s, by {responses} responses of {bytes} bytes",
                took.as_secs_f64()
            );
            return;
        }
        tokio::select! {
            _ = news.changed() => {}
            () = &mut slow, if !told_of_slow => {
                told_of_slow = true;
                tracing::warn!("mesh {number}: {settled} of {proxies} proxies have it; not yet {}", late(plane, number));
            }
        }
    }
}

fn late(plane: &ControlPlane, number: u64) -> String {
    let clients = plane.fleet.clients().into_iter().filter(|it| it.settled < number);
    let mut names: Vec<String> = clients.map(|client| client.node).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}
