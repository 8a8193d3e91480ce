//! The limits of one domain, as a tree of descriptor entries.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use xds::envoy::config::core::v3::Metadata;
use xds::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use xds::yaml::Document;

/// A file of limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Whose they are: the `domain` of the filters that ask.
    pub(crate) domain: String,
    descriptors: Vec<Node>,
}

/// What one entry of a descriptor has to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    key: String,
    /// Any value, each counted apart, if there is none.
    value: Option<String>,
    rate_limit: Option<Limit>,
    #[serde(default)]
    descriptors: Vec<Node>,
}

/// How many requests a window may have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    pub(crate) unit: Unit,
    /// Read as a number of JSON.
    #[serde(deserialize_with = "whole")]
    pub(crate) requests_per_unit: u32,
    #[serde(default)]
    pub(crate) name: String,
}

/// The length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    Second = 1,
    Minute = 60,
    Hour = 60 * 60,
    Day = 24 * 60 * 60,
}

impl Unit {
    /// In seconds.
    pub(crate) fn seconds(self) -> u64 {
        self as u64
    }
}

fn whole<'de, D: serde::Deserializer<'de>>(number: D) -> Result<u32, D::Error> {
    let number = f64::deserialize(number)?;
    let whole = number as u32;
    if f64::from(whole) == number {
        Ok(whole)
    } else {
        Err(serde::de::Error::custom("must be a whole number"))
    }
}

impl Limits {
    /// Reads the YAML `text` of the file called `name`.
    pub(crate) fn read(name: &str, text: &str) -> Result<Self> {
        // What reads YAML reads messages of Envoy's; this one holds any structure.
        let indented = text.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let wrapped = format!("filter_metadata:\n  limits:\n{indented}");
        let document: Metadata = Document::new(name, wrapped).read().map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            anyhow!("{}", lines.join("\n"))
        })?;
        let limits = document.filter_metadata.get("limits");
        let json = limits.map(proxy::net::structure::json).unwrap_or_default();
        serde_json::from_value(json.into()).with_context(|| format!("{name} is no file of limits"))
    }

    /// The limit of a descriptor with these entries: each has to match one level, and a value one before a mere key.
    pub(crate) fn of(&self, entries: &[Entry]) -> Option<&Limit> {
        let (mut level, mut found) = (&self.descriptors, None);
        for entry in entries {
            let of_key = || level.iter().filter(|node| node.key == entry.key);
            let exact = of_key().find(|node| node.value.as_deref() == Some(&*entry.value));
            let node = exact.or_else(|| of_key().find(|node| node.value.is_none()))?;
            (level, found) = (&node.descriptors, node.rate_limit.as_ref());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
domain: shop
descriptors:
- key: remote_address
  rate_limit: {unit: minute, requests_per_unit: 100}
- key: generic_key
  value: checkout
  rate_limit: {unit: second, requests_per_unit: 5, name: all}
  descriptors:
  - key: user
    value: admin
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 7}
";

    fn limit(entries: &[(&str, &str)]) -> Option<u32> {
        let entry = |(key, value): &(&str, &str)| Entry {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        Some(Limits::read("test.yaml", YAML).unwrap().of(&entries)?.requests_per_unit)
    }

    #[test]
    fn every_entry_has_to_match() {
        assert_eq!(limit(&[("remote_address", "10.0.0.1")]), Some(100));
        assert_eq!(limit(&[("generic_key", "checkout")]), Some(5));
        assert_eq!(limit(&[("generic_key", "checkout"), ("user", "a")]), Some(7));
        assert_eq!(limit(&[("generic_key", "checkout"), ("user", "admin")]), None);
        assert_eq!(limit(&[("generic_key", "other")]), None);
        assert_eq!(limit(&[("user", "a")]), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            (
                "domain: a\ndescriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 1}}]",
                "year",
            ),
            ("domain: a\ndescriptors: [{key: k, limit: 1}]", "limit"),
            (
                "domain: a\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 1.5}}]",
                "whole",
            ),
        ] {
            let error = format!("{:#}", Limits::read("test.yaml", text).unwrap_err());
            assert!(error.contains(named) && error.contains("test.yaml"), "{error}");
        }
    }
}
