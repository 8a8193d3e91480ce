//! How much may be spent on mirrored requests at once: they are worth nothing to the client, so what a dead mirror
//! can take from one worker is fixed.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

/// How many mirrored requests may be under way.
const MAX_UNDER_WAY: usize = 1024;

/// How many bytes of bodies may wait for mirrors.
const MAX_WAITING: u64 = 16 << 20;

/// A piece of a body counts for at least this many bytes: it may hold the buffer it was read into.
pub const MIN_COST: u64 = 256;

/// What one worker spends on mirrored requests.
#[derive(Debug, Default)]
pub struct MirrorBudget {
    under_way: Cell<usize>,
    /// Atomic because codecs may ask that what they hold can be dropped anywhere.
    waiting: Arc<AtomicU64>,
}

/// One mirrored request under way, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Rc<MirrorBudget>);

/// A piece of a body that waits for a mirror: in line, or in the codec until it is written.
struct Waiting {
    data: Bytes,
    of: Arc<AtomicU64>,
}

/// What a piece of a body counts for, in bytes.
pub fn cost(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX).max(MIN_COST)
}

impl MirrorBudget {
    /// A place for one more mirrored request, if there is one.
    pub fn enter(self: &Rc<Self>) -> Option<UnderWay> {
        let under_way = self.under_way.get();
        (under_way < MAX_UNDER_WAY).then(|| {
            self.under_way.set(under_way + 1);
            UnderWay(Rc::clone(self))
        })
    }

    /// `data`, which counts as waiting until the last of what is returned is dropped; none if there is no room for it.
    pub fn charge(&self, data: &Bytes) -> Option<Bytes> {
        let cost = cost(data);
        let fits = self.waiting().saturating_add(cost) <= MAX_WAITING;
        fits.then(|| {
            self.waiting.fetch_add(cost, Relaxed);
            Bytes::from_owner(Waiting { data: data.clone(), of: Arc::clone(&self.waiting) })
        })
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.of.fetch_sub(cost(&self.data), Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_bytes_come_back() {
        let budget = Rc::new(MirrorBudget::default());
        let places: Vec<_> = (0..MAX_UNDER_WAY).map_while(|_| budget.enter()).collect();
        assert_eq!(places.len(), MAX_UNDER_WAY);
        assert!(budget.enter().is_none());
        drop(places);
        assert!(budget.enter().is_some());

        let most = Bytes::from(vec![0; usize::try_from(MAX_WAITING - MIN_COST).unwrap()]);
        let first = budget.charge(&most).unwrap();
        let second = budget.charge(&Bytes::from_static(b"x")).unwrap();
        assert!(budget.charge(&Bytes::from_static(b"x")).is_none());
        let part = second.slice(..);
        drop(second);
        assert_eq!(budget.waiting(), MAX_WAITING, "a part of it is still there");
        drop((first, part));
        assert_eq!(budget.waiting(), 0);
    }
}
