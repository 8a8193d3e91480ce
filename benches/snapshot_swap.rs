//! What does loading the configuration cost a request, and what does replacing it cost while others read?
//!
//! A request loads the snapshot once and finds its cluster in it. A replacement shares all but one of its
//! clusters with the one before, as after a change of one endpoint; a second thread loads all the while.

#![expect(clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use proxy::cluster::ClusterSpec;
use proxy::snapshot::{Snapshot, SnapshotCell};
use proxy::worker::Worker;

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// A snapshot of `size` clusters.
fn snapshot(size: usize) -> Snapshot {
    let mut text = "static_resources:\n  clusters:\n".to_owned();
    for number in 0..size {
        let name = format!("outbound|80||service-{number}.shop.svc.cluster.local");
        writeln!(text, "  - {{ name: '{name}', type: STATIC }}").expect("memory to write to");
    }
    benches::snapshot(&text)
}

/// `before` with one of its clusters changed.
fn changed(before: &Snapshot) -> Snapshot {
    let mut clusters = before.clusters.clone();
    let first = clusters.values_mut().next().expect("a cluster");
    let ClusterSpec { config, assignment, .. } = &**first;
    *first = Arc::new(ClusterSpec {
        config: Arc::clone(config),
        assignment: Arc::clone(assignment),
        tls: None,
        match_tls: Vec::new(),
    });
    let version = before.version + 1;
    Snapshot { version, clusters, ..Snapshot::default() }
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot_load");
    for size in SIZES {
        let shared = benches::shared(snapshot(size));
        let name = Arc::clone(shared.snapshots.load().clusters.keys().next().expect("a cluster"));
        let worker = Worker::new(0, shared.clone());
        group.bench_function(BenchmarkId::new("by a worker", size), |bencher| {
            bencher.iter(|| worker.snapshot());
        });
        group.bench_function(BenchmarkId::new("and find a cluster", size), |bencher| {
            bencher.iter(|| {
                let snapshot = worker.snapshot();
                black_box(snapshot.clusters.get(&name)).is_some()
            });
        });
        // What the worker's own reader saves.
        group.bench_function(BenchmarkId::new("from the cell itself", size), |bencher| {
            bencher.iter(|| shared.snapshots.load());
        });
    }
    group.finish();
}

/// Loads from `cell`, without pause, until told to stop.
fn read(cell: &SnapshotCell, stop: &AtomicBool) {
    let mut reader = cell.reader();
    while !stop.load(Ordering::Relaxed) {
        black_box(reader.load());
    }
}

fn swap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot_swap");
    for size in SIZES {
        let shared = benches::shared(snapshot(size));
        let before = shared.snapshots.load();
        let after = Arc::new(changed(&before));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| read(&shared.snapshots, &stop));
            let mut next = [&before, &after].into_iter().cycle();
            let mut store = || {
                let next = next.next().expect("an endless cycle");
                shared.snapshots.store(Arc::clone(next));
            };
            group.bench_function(BenchmarkId::new("store", size), |bencher| {
                bencher.iter(&mut store);
            });
            let mut reader = shared.snapshots.reader();
            group.bench_function(BenchmarkId::new("store, then load", size), |bencher| {
                bencher.iter(|| {
                    store();
                    reader.load().version
                });
            });
            // The part of a replacement that grows with the number of clusters.
            group.bench_function(BenchmarkId::new("copy, hand over, store", size), |bencher| {
                bencher.iter(|| {
                    let next = Arc::new(changed(&shared.snapshots.load()));
                    shared.clusters.publish(&next.clusters);
                    shared.snapshots.store(next);
                });
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
    group.finish();
}

criterion_group!(benches, load, swap);
criterion_main!(benches);
