//! Which compression a client prefers of those that a chain can do (RFC 9110, section 12.5.3, as Envoy reads it).

use smallvec::SmallVec;

/// What one filter of the chain can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What `content-encoding` would say.
    pub(super) encoding: &'static str,
    /// Whether it is taken before others that the client likes as much.
    pub(super) first: bool,
}

/// What the client's words come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// What it named.
    Named(&'static str),
    /// The first of the chain that it does not refuse, for it accepts anything.
    Any(&'static str),
    /// No compression: it says so.
    Identity,
    /// No compression: it accepts nothing of what there is.
    Nothing,
}

impl Choice {
    /// The compression chosen.
    pub(super) fn encoding(self) -> Option<&'static str> {
        match self {
            Self::Named(encoding) | Self::Any(encoding) => Some(encoding),
            Self::Identity | Self::Nothing => None,
        }
    }
}

/// One of the things that are accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Accepted<'a> {
    what: &'a str,
    weight: f32,
}

/// Chooses by the value of `accept-encoding`. `candidates` are in the order of the chain; of those with the same
/// encoding the first counts.
pub(super) fn choose(accepted: &[u8], candidates: &[Candidate]) -> Choice {
    let accepted: SmallVec<[_; 8]> = all(accepted).collect();
    let allowed = |encoding: &str| {
        let refused = accepted.iter().any(|it| it.what == encoding && it.weight == 0.0);
        candidates.iter().find(|it| !refused && it.encoding == encoding)
    };
    let Some(any) = candidates.iter().find(|it| allowed(it.encoding).is_some()) else {
        return Choice::Nothing;
    };
    let (mut best, mut choice) = (0.0, Choice::Nothing);
    for Accepted { what, weight } in accepted.iter().copied() {
        let candidate = allowed(what);
        let this = match (candidate, what) {
            (Some(candidate), _) => Choice::Named(candidate.encoding),
            (None, "identity") => Choice::Identity,
            (None, "*") => Choice::Any(any.encoding),
            (None, _) => continue,
        };
        let first = candidate.is_some_and(|candidate| candidate.first);
        if weight > best || (weight == best && first) {
            (best, choice) = (weight, this);
        }
    }
    if best > 0.0 { choice } else { Choice::Nothing }
}

fn all(accepted: &[u8]) -> impl Iterator<Item = Accepted<'_>> {
    accepted.split(|byte| *byte == b',').filter_map(one)
}

/// None if it cannot be read.
fn one(item: &[u8]) -> Option<Accepted<'_>> {
    let item = std::str::from_utf8(item).ok()?;
    let Some((what, parameter)) = item.split_once(';') else {
        return Some(Accepted { what: item.trim(), weight: 1.0 });
    };
    let weight = match parameter.split_once('=') {
        Some((name, weight)) if name.trim().eq_ignore_ascii_case("q") => {
            weight.trim().parse().ok()?
        }
        _ => 1.0,
    };
    Some(Accepted { what: what.trim(), weight })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GZIP: Candidate = Candidate { encoding: "gzip", first: false };
    const BROTLI: Candidate = Candidate { encoding: "br", first: false };

    fn of_both(accepted: &str) -> Choice {
        choose(accepted.as_bytes(), &[GZIP, BROTLI])
    }

    #[test]
    fn the_heaviest_is_chosen_and_of_equals_the_one_named_first() {
        use Choice::{Any, Identity, Named, Nothing};
        for (accepted, choice) in [
            ("gzip, br", Named("gzip")),
            ("br, gzip", Named("br")),
            ("gzip;q=0.5, br;q=0.8", Named("br")),
            (" gzip ; Q = 0.5 , deflate", Named("gzip")),
            ("gzip;q=0.5, identity", Identity),
            ("gzip, identity", Named("gzip")),
            ("identity, gzip", Identity),
            ("*", Any("gzip")),
            ("gzip;q=0, *", Any("br")),
            ("*;q=0.9, gzip;q=0.5", Any("gzip")),
            ("*;q=0", Nothing),
            ("gzip;q=0, br;q=0, *", Nothing),
            ("GZIP", Nothing),
            ("deflate", Nothing),
            ("gzip;q=x, br;q=0.1", Named("br")),
            ("gzip;q=-1", Nothing),
            ("gzip;q", Named("gzip")),
            ("gzip;x=1;q=0", Named("gzip")),
            ("", Nothing),
            (",,", Nothing),
        ] {
            assert_eq!(of_both(accepted), choice, "{accepted}");
        }
    }

    #[test]
    fn a_filter_may_ask_to_be_first_among_equals() {
        let chain = [GZIP, Candidate { first: true, ..BROTLI }];
        for (accepted, encoding) in [
            ("gzip, br", Some("br")),
            ("gzip, br;q=0.9", Some("gzip")),
            ("*", Some("gzip")),
            ("br;q=0", None),
        ] {
            assert_eq!(choose(accepted.as_bytes(), &chain).encoding(), encoding, "{accepted}");
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_had_and_not_refused(
            items in prop::collection::vec(
                ("gzip|br|identity|\\*|x", 0_u8..=10).prop_map(|(what, q)| (what, f32::from(q) / 10.0)),
                0..6,
            ),
        ) {
            let text: Vec<_> = items.iter().map(|(what, q)| format!("{what};q={q}")).collect();
            let choice = of_both(&text.join(", "));
            if let Some(encoding) = choice.encoding() {
                prop_assert!(["gzip", "br"].contains(&encoding));
                prop_assert!(!items.iter().any(|(what, q)| what == encoding && *q == 0.0));
            }
        }

        #[test]
        fn anything_is_read(accepted in prop::collection::vec(any::<u8>(), 0..60)) {
            choose(&accepted, &[GZIP, BROTLI]);
        }
    }
}
