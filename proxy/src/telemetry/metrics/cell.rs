//! The numbers themselves: counters, gauges and histograms that cost a load and a store to change.
//!
//! A cell of a *shard* has one writer, the worker that owns the shard, so it is changed by a plain load and
//! store of a relaxed atomic: no locked instruction, no shared cache line. Readers sum the shards. The
//! `Shared…` cells have any number of writers and are for rare events only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use super::sample::{Name, Samples, Tag, Value};

/// What a statistics struct needs of each of its fields.
pub(super) trait Cell: Default {
    /// Adds what `other` holds to this cell. A shard that is no longer alive passes on what it counted,
    /// but not its gauges: what they measured ended with it.
    fn absorb(&self, other: &Self, alive: bool);

    /// Writes the cell's samples.
    fn sample(&self, name: Name<'_>, out: &mut Samples);
}

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Cell for Counter {
    fn absorb(&self, other: &Self, _alive: bool) {
        self.add(other.get());
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        out.push(name, Tag::None, Value::Counter(self.get()), self.get() != 0);
    }
}

/// A [`Counter`] that is left out of the output until it counts: Envoy creates these on first use.
#[derive(Debug, Default)]
pub struct SparseCounter(Counter);

impl std::ops::Deref for SparseCounter {
    type Target = Counter;

    fn deref(&self) -> &Counter {
        &self.0
    }
}

impl Cell for SparseCounter {
    fn absorb(&self, other: &Self, alive: bool) {
        self.0.absorb(other, alive);
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        if self.get() != 0 {
            self.0.sample(name, out);
        }
    }
}

/// A number that goes up and down, written by one thread.
#[derive(Debug, Default)]
pub struct Gauge {
    value: AtomicI64,
    used: AtomicBool,
}

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.set(self.get().wrapping_add(amount));
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.value.store(value, Relaxed);
        self.used.store(true, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }
}

impl Cell for Gauge {
    fn absorb(&self, other: &Self, alive: bool) {
        if other.used.load(Relaxed) {
            self.add(if alive { other.get() } else { 0 });
        }
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        out.push(name, Tag::None, Value::Gauge(self.get()), self.used.load(Relaxed));
    }
}

/// Upper bounds of a histogram's buckets, Envoy's defaults. Half a millisecond is there because Envoy has
/// it; whole numbers of milliseconds never fall between it and 1.
pub const BUCKET_BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// One bucket per bound and one for what is larger.
const BUCKETS: usize = BUCKET_BOUNDS.len() + 1;

/// The distribution of a number (mostly milliseconds), written by one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    /// Counts one value.
    pub fn record(&self, value: u64) {
        let index = BUCKET_BOUNDS.iter().position(|bound| value as f64 <= *bound);
        if let Some(bucket) = self.buckets.get(index.unwrap_or(BUCKETS - 1)) {
            bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        }
        self.sum.store(self.sum.load(Relaxed).wrapping_add(value), Relaxed);
        if value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|i| self.buckets.get(i).map_or(0, |b| b.load(Relaxed))),
            sum: self.sum.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

impl Cell for Histogram {
    fn absorb(&self, other: &Self, _alive: bool) {
        for (mine, theirs) in self.buckets.iter().zip(&other.buckets) {
            mine.store(mine.load(Relaxed) + theirs.load(Relaxed), Relaxed);
        }
        self.sum.store(self.sum.load(Relaxed).wrapping_add(other.sum.load(Relaxed)), Relaxed);
        self.max.store(self.max.load(Relaxed).max(other.max.load(Relaxed)), Relaxed);
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        let distribution = self.snapshot();
        let used = distribution.count() != 0;
        out.push(name, Tag::None, Value::Histogram(Box::new(distribution)), used);
    }
}

/// What a [`Histogram`] had counted at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Number of values in each bucket of [`BUCKET_BOUNDS`], then of larger ones; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Sum of all values.
    pub sum: u64,
    /// The largest value.
    pub max: u64,
}

impl Distribution {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The value below which `quantile` (0 to 1) of all values lie, interpolated within its bucket and so
    /// only as exact as the bucket is wide; none if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        let rank = quantile * count as f64;
        let (mut below, mut lower) = (0_u64, 0.0_f64);
        for (index, in_bucket) in self.buckets.iter().enumerate() {
            let upper =
                BUCKET_BOUNDS.get(index).map_or(self.max as f64, |b| b.min(self.max as f64));
            if *in_bucket > 0 && rank <= (below + in_bucket) as f64 {
                let share = (rank - below as f64) / *in_bucket as f64;
                return Some(lower.min(upper) + (upper - lower).max(0.0) * share);
            }
            below += in_bucket;
            lower = upper;
        }
        (count > 0).then_some(self.max as f64)
    }
}

/// Responses by status code. One increment per response; the totals by class and of all are summed when
/// read. The hundred counters of a class are allocated with its first response.
#[derive(Debug, Default)]
pub struct StatusCodes([OnceLock<Box<[Counter; 100]>>; 5]);

impl StatusCodes {
    /// Counts a response with `status`; codes outside 100 to 599 are not counted.
    pub fn record(&self, status: u16) {
        if let Some(counter) = self.counter(status) {
            counter.inc();
        }
    }

    /// Responses with any status.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    fn counter(&self, status: u16) -> Option<&Counter> {
        let class = self.0.get(usize::from(status / 100).checked_sub(1)?)?;
        let page = class.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
        page.get(usize::from(status % 100))
    }

    /// Every status seen, in rising order, with its count.
    fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        let classes = (100..).step_by(100).zip(&self.0);
        classes.flat_map(|(first, class)| {
            let page = class.get().into_iter().flat_map(|page| page.iter());
            (first..).zip(page.map(Counter::get)).filter(|(_, count)| *count > 0)
        })
    }

    fn class_total(&self, class: u16) -> u64 {
        self.iter().filter(|(status, _)| status / 100 == class).map(|(_, count)| count).sum()
    }
}

impl Cell for StatusCodes {
    fn absorb(&self, other: &Self, _alive: bool) {
        for (status, count) in other.iter() {
            if let Some(counter) = self.counter(status) {
                counter.add(count);
            }
        }
    }

    /// `X_503`, `X_5xx` for what was seen, and `X_completed`.
    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        for (status, count) in self.iter() {
            out.push(name, Tag::Code(status), Value::Counter(count), true);
        }
        for class in 1..=5 {
            let total = self.class_total(class);
            if total > 0 {
                out.push(name, Tag::Class(class), Value::Counter(total), true);
            }
        }
        out.push(name, Tag::Completed, Value::Counter(self.total()), self.total() > 0);
    }
}

/// [`StatusCodes`] that are left out of the output until there is a response.
#[derive(Debug, Default)]
pub struct SparseStatusCodes(StatusCodes);

impl std::ops::Deref for SparseStatusCodes {
    type Target = StatusCodes;

    fn deref(&self) -> &StatusCodes {
        &self.0
    }
}

impl Cell for SparseStatusCodes {
    fn absorb(&self, other: &Self, alive: bool) {
        self.0.absorb(other, alive);
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        if self.total() > 0 {
            self.0.sample(name, out);
        }
    }
}

/// Responses by status class only, as Envoy counts them downstream; every class is shown.
#[derive(Debug, Default)]
pub struct StatusClasses([Counter; 5]);

impl StatusClasses {
    /// Counts a response with `status`; codes outside 100 to 599 are not counted.
    pub fn record(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1);
        if let Some(counter) = class.and_then(|class| self.0.get(class)) {
            counter.inc();
        }
    }
}

impl Cell for StatusClasses {
    fn absorb(&self, other: &Self, alive: bool) {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            mine.absorb(theirs, alive);
        }
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        for (class, counter) in (1..).zip(&self.0) {
            let count = counter.get();
            out.push(name, Tag::Class(class), Value::Counter(count), count > 0);
        }
        let total = self.0.iter().map(Counter::get).sum();
        out.push(name, Tag::Completed, Value::Counter(total), total > 0);
    }
}

/// A counter for rare events, with any number of writers.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Cell for SharedCounter {
    fn absorb(&self, other: &Self, _alive: bool) {
        self.add(other.get());
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        out.push(name, Tag::None, Value::Counter(self.get()), self.get() != 0);
    }
}

/// A gauge with any number of writers.
#[derive(Debug, Default)]
pub struct SharedGauge {
    value: AtomicI64,
    used: AtomicBool,
}

impl SharedGauge {
    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.value.fetch_add(amount, Relaxed);
        self.used.store(true, Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.value.store(value, Relaxed);
        self.used.store(true, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }
}

impl Cell for SharedGauge {
    fn absorb(&self, other: &Self, alive: bool) {
        if alive {
            self.add(other.get());
        }
    }

    fn sample(&self, name: Name<'_>, out: &mut Samples) {
        out.push(name, Tag::None, Value::Gauge(self.get()), self.used.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_into_envoys_buckets() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 5, 6, 3_600_000, 3_600_001] {
            histogram.record(value);
        }
        let all = histogram.snapshot();
        assert_eq!(all.count(), 7);
        assert_eq!(all.buckets[..4], [1, 1, 2, 1]);
        assert_eq!(all.buckets[18..], [1, 1]);
        assert_eq!(all.sum, 14 + 7_200_001);
        assert_eq!(all.max, 3_600_001);
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        for value in 1..=100 {
            histogram.record(value);
        }
        let all = histogram.snapshot();
        let median = all.quantile(0.5).unwrap();
        assert!((49.0..=51.0).contains(&median), "{median}");
        assert_eq!(all.quantile(1.0), Some(100.0));
        assert_eq!(all.quantile(0.0), Some(0.5));
    }

    #[test]
    fn status_codes_are_counted_once_and_summed_by_class() {
        let codes = StatusCodes::default();
        for status in [200, 200, 503, 404, 99, 600, 0] {
            codes.record(status);
        }
        assert_eq!(codes.iter().collect::<Vec<_>>(), [(200, 2), (404, 1), (503, 1)]);
        assert_eq!(codes.class_total(2), 2);
        assert_eq!(codes.total(), 4);
    }

    #[test]
    fn a_dead_shard_passes_on_counts_but_not_gauges() {
        let (sum, shard) = (Gauge::default(), Gauge::default());
        shard.add(3);
        sum.absorb(&shard, true);
        assert_eq!(sum.get(), 3);
        sum.absorb(&shard, false);
        assert_eq!(sum.get(), 3);
        let (sum, shard) = (Counter::default(), Counter::default());
        shard.add(3);
        sum.absorb(&shard, false);
        assert_eq!(sum.get(), 3);
    }
}
