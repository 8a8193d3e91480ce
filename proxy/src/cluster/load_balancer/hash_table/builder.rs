//! Builds large tables: in threads of their own, few at a time, so that workers go on meanwhile.

use std::cmp::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::HashTable;

/// Most tables that are built at the same time. They share the processors with workers.
const THREADS: usize = 2;

/// What is to be built, for the whole process.
static WORK: Mutex<Work> = Mutex::new(Work { wanted: Vec::new(), threads: 0 });

#[derive(Debug)]
struct Work {
    wanted: Vec<(f64, Weak<HashTable>)>,
    threads: usize,
}

/// Sees to it that `table` is built.
pub(super) fn build(table: &Arc<HashTable>) {
    let mut work = WORK.lock();
    work.wanted.push((table.effort(), Arc::downgrade(table)));
    if work.threads >= THREADS {
        return;
    }
    let thread = std::thread::Builder::new().name("hash-tables".to_owned());
    match thread.spawn(build_wanted) {
        Ok(_) => work.threads += 1,
        Err(error) if work.threads == 0 => {
            tracing::warn!(%error, "no thread for hash tables; a worker waits");
            drop(work);
            table.build();
        }
        Err(_) => {}
    }
}

/// Builds what is wanted until there is nothing left. What nobody uses any more is left out.
fn build_wanted() {
    loop {
        let mut work = WORK.lock();
        let Some(table) = work.next() else {
            work.threads -= 1;
            return;
        };
        drop(work);
        if let Some(table) = table.upgrade() {
            table.build();
        }
    }
}

impl Work {
    /// The least first, so that few wait long.
    fn next(&mut self) -> Option<Weak<HashTable>> {
        let efforts = self.wanted.iter().enumerate().map(|(place, (effort, _))| (place, *effort));
        let least = efforts.min_by(|(_, a), (_, b)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        least.map(|(place, _)| self.wanted.swap_remove(place).1)
    }
}
