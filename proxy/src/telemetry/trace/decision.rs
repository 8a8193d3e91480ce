//! Which requests are traced, and why: their ids decide and remember it, as in Envoy.

use crate::config::tracing::{Sampler, Sampling};

use super::context::TraceContext;

/// Length of a UUID in text.
const UUID: usize = 36;
/// Where in a UUID the reason is packed: its version, 4 for a random one.
const PLACE: usize = 14;

/// Why a request is traced (Envoy `Tracing::Reason`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reason {
    /// It is not.
    #[default]
    NotTraceable,
    /// By chance.
    Sampling,
    /// An internal caller asked for it (`x-envoy-force-trace`).
    ServiceForced,
    /// The client asked for it (`x-client-trace-id`).
    ClientForced,
}

impl Reason {
    /// Whether the request is traced.
    pub fn is_traced(self) -> bool {
        self != Self::NotTraceable
    }

    /// The digit it is packed as.
    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    /// The reason that `id` carries.
    pub fn of(id: &[u8]) -> Self {
        let digit = id.get(PLACE).filter(|_| id.len() == UUID);
        let all = [Self::Sampling, Self::ServiceForced, Self::ClientForced];
        all.into_iter().find(|reason| digit == Some(&reason.digit())).unwrap_or_default()
    }

    /// `id` with this reason packed in it; none if it carries that already, or is no UUID.
    pub fn pack(self, id: &[u8]) -> Option<[u8; UUID]> {
        let mut id: [u8; UUID] = id.try_into().ok()?;
        let place = id.get_mut(PLACE)?;
        (std::mem::replace(place, self.digit()) != self.digit()).then_some(id)
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asks {
    /// It has `x-client-trace-id`.
    pub client: bool,
    /// It has `x-envoy-force-trace`.
    pub forced: bool,
}

/// Whether the request called `id` is traced; none if its id says nothing, so that it is not. `random` is a random
/// number of its own.
pub fn decide(id: &[u8], sampling: &Sampling, asks: Asks, random: u64) -> Option<Reason> {
    let number = number(id)?;
    let reason = match Reason::of(id) {
        Reason::NotTraceable if asks.client && sampling.client.takes(random) => {
            Reason::ClientForced
        }
        Reason::NotTraceable if asks.forced => Reason::ServiceForced,
        Reason::NotTraceable if sampling.random.takes(number) => Reason::Sampling,
        reason => reason,
    };
    Some(if sampling.overall.takes(number) { reason } else { Reason::NotTraceable })
}

/// The number below 10,000 that an id stands for: equal on every hop.
fn number(id: &[u8]) -> Option<u64> {
    let first = id.get(..8)?;
    let text = std::str::from_utf8(first).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(|number| number % 10_000)
}

/// Whether a span of a request that may be traced is recorded: as its caller's is, unless a sampler decides.
pub fn is_recorded(
    sampler: Option<&Sampler>,
    parent: Option<&TraceContext>,
    trace_id: u128,
) -> bool {
    match sampler {
        None => parent.is_none_or(|parent| parent.sampled),
        Some(Sampler::AlwaysOn) => true,
        Some(Sampler::ParentBased(otherwise)) => match parent {
            Some(parent) => parent.sampled,
            None => is_recorded(Some(otherwise), None, trace_id),
        },
        // Envoy reads the first eight bytes in the order of the machine.
        Some(Sampler::TraceIdRatio(share)) => {
            let [first, _] = [(trace_id >> 64) as u64, trace_id as u64];
            share.takes(first.swap_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matcher::Fraction;

    fn percent(numerator: u32) -> Fraction {
        Fraction { numerator: numerator * 100, denominator: 10_000 }
    }

    fn sampling(random: u32, overall: u32) -> Sampling {
        Sampling { client: percent(100), random: percent(random), overall: percent(overall) }
    }

    /// Each verdict as Envoy 1.40 gives it: 0x1387 is 4999, the last of half of all numbers.
    #[test]
    fn ids_decide_and_remember() {
        let half = sampling(50, 100);
        for (id, sampling, verdict) in [
            ("00000001-0000-4000-8000-000000000000", half, Some(Reason::Sampling)),
            ("00001387-0000-4000-8000-000000000000", half, Some(Reason::Sampling)),
            ("00001388-0000-4000-8000-000000000000", half, Some(Reason::NotTraceable)),
            ("00001388-0000-9000-8000-000000000000", half, Some(Reason::Sampling)),
            ("0000ffff-0000-a000-8000-000000000000", half, Some(Reason::ServiceForced)),
            ("0000ffff-0000-b000-8000-000000000000", half, Some(Reason::ClientForced)),
            ("00000001-0000-9000-8000-000000000000", sampling(100, 0), Some(Reason::NotTraceable)),
            ("zz000001-0000-9000-8000-000000000000", half, None),
            ("+0000001-0000-9000-8000-000000000000", half, None),
            ("00000001-short", half, Some(Reason::Sampling)),
            ("short", half, None),
            ("", half, None),
        ] {
            assert_eq!(decide(id.as_bytes(), &sampling, Asks::default(), 0), verdict, "{id}");
        }
    }

    #[test]
    fn who_asks_is_traced() {
        let id = b"00000001-0000-4000-8000-000000000000";
        let asks = |client, forced, sampling| decide(id, &sampling, Asks { client, forced }, 5000);
        let none = sampling(0, 100);
        assert_eq!(asks(true, true, none), Some(Reason::ClientForced));
        assert_eq!(asks(false, true, none), Some(Reason::ServiceForced));
        assert_eq!(asks(false, false, none), Some(Reason::NotTraceable));
        let few = Sampling { client: percent(50), ..none };
        assert_eq!(asks(true, false, few), Some(Reason::NotTraceable));
        assert_eq!(asks(true, true, sampling(0, 0)), Some(Reason::NotTraceable));
    }

    #[test]
    fn reasons_are_packed_where_they_are_found() {
        let id = b"00000001-0000-4000-8000-000000000000";
        assert_eq!(Reason::NotTraceable.pack(id), None);
        for reason in [Reason::Sampling, Reason::ServiceForced, Reason::ClientForced] {
            let packed = reason.pack(id).unwrap();
            assert_eq!(Reason::of(&packed), reason);
            assert_eq!(Reason::NotTraceable.pack(&packed), Some(*id));
        }
        assert_eq!(Reason::Sampling.pack(b"short"), None);
    }

    #[test]
    fn samplers_decide_for_those_who_may_be_traced() {
        let parent = |sampled| TraceContext { trace_id: 1, span_id: 1, parent_id: None, sampled };
        let (yes, no) = (parent(true), parent(false));
        assert!(is_recorded(None, None, 1));
        assert!(is_recorded(None, Some(&yes), 1) && !is_recorded(None, Some(&no), 1));
        assert!(is_recorded(Some(&Sampler::AlwaysOn), Some(&no), 1));
        let never = Sampler::TraceIdRatio(percent(0));
        let based = Sampler::ParentBased(Box::new(never));
        assert!(is_recorded(Some(&based), Some(&yes), 1) && !is_recorded(Some(&based), None, 1));
        let half = Sampler::TraceIdRatio(percent(50));
        assert!(
            is_recorded(Some(&half), None, 0) && !is_recorded(Some(&half), None, 0x8813 << 112)
        );
    }
}
