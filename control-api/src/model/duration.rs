//! Durations as Istio and the Gateway API write them: `1.5s`, `100ms`, `1h30m`.

use std::fmt;
use std::ops::Deref;
use std::time;

use serde::{Deserialize, Deserializer, de};

/// A length of time, never negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(time::Duration);

impl Duration {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// Reads protobuf's and Go's form: decimal numbers, each with its unit (`h`, `m`, `s`, `ms`, `us`, `ns`),
    /// from the longest to the shortest or in any order. None for anything else, also without a unit.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::default());
        }
        let mut rest = text;
        let mut total = 0.0_f64;
        while !rest.is_empty() || text.is_empty() {
            let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let value: f64 = rest.get(..number)?.parse().ok()?;
            rest = rest.get(number..)?;
            let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let seconds = match rest.get(..unit)? {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
            total += value * seconds;
            rest = rest.get(unit..)?;
        }
        time::Duration::try_from_secs_f64(total).ok().map(Self)
    }
}

impl Deref for Duration {
    type Target = time::Duration;

    fn deref(&self) -> &time::Duration {
        &self.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let reason = "must be a valid duration greater than 1ms";
            de::Error::custom(format!("Invalid value: {text:?}: {reason}, such as \"1.5s\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<u128> {
        Duration::parse(text).map(|duration| duration.as_millis())
    }

    #[test]
    fn units_add_up() {
        assert_eq!(millis("1.5s"), Some(1500));
        assert_eq!(millis("1h2m3s4ms"), Some(3_723_004));
        assert_eq!((millis("0"), millis("0s"), millis("100us")), (Some(0), Some(0), Some(0)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "apple", "10", "-1s", "1 s", "s", "1d", "1e99h", ".s", "1..2s"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = Duration::parse(&text);
        }
    }
}
