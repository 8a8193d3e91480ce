//! How much may be spent on mirrored requests at once: they are worth nothing to the client, so what a dead mirror
//! can take from one worker is fixed.

use std::cell::Cell;
use std::rc::Rc;

/// How many mirrored requests may be under way.
const MAX_UNDER_WAY: usize = 1024;

/// How many bytes of bodies may wait for mirrors.
const MAX_WAITING: u64 = 16 << 20;

/// What one worker spends on mirrored requests.
#[derive(Debug, Default)]
pub struct MirrorBudget {
    under_way: Cell<usize>,
    waiting: Cell<u64>,
}

/// One mirrored request under way, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Rc<MirrorBudget>);

impl MirrorBudget {
    /// A place for one more mirrored request, if there is one.
    pub fn enter(self: &Rc<Self>) -> Option<UnderWay> {
        let under_way = self.under_way.get();
        (under_way < MAX_UNDER_WAY).then(|| {
            self.under_way.set(under_way + 1);
            UnderWay(Rc::clone(self))
        })
    }

    /// Whether so many bytes more may wait; if so they count until they are [given back](Self::give).
    #[must_use]
    pub fn take(&self, bytes: u64) -> bool {
        let waiting = self.waiting.get().saturating_add(bytes);
        let fits = waiting <= MAX_WAITING;
        if fits {
            self.waiting.set(waiting);
        }
        fits
    }

    /// So many bytes wait no more.
    pub fn give(&self, bytes: u64) {
        self.waiting.set(self.waiting.get().saturating_sub(bytes));
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.get()
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

        assert!(budget.take(MAX_WAITING));
        assert!(!budget.take(1));
        budget.give(1);
        assert!(budget.take(1));
    }
}
