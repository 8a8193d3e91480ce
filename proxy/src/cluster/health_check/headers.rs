//! Headers that the configuration adds to a check.

use http::header::Entry;
use http::{HeaderMap, HeaderValue};

use crate::config::format::{Facts, Operator};
use crate::config::header::{AppendAction, HeaderToAdd};

/// There is no request from a client, so hardly anything is known.
struct NoFacts;

impl Facts for NoFacts {
    fn write(&self, _: &Operator, _: &mut Vec<u8>) -> bool {
        false
    }
}

/// Adds `headers`; operators in their values are empty.
pub(super) fn add(headers: &[HeaderToAdd], to: &mut HeaderMap) {
    for HeaderToAdd { name, value, action, keep_empty } in headers {
        let mut text = Vec::new();
        value.render(&NoFacts, "", &mut text);
        let Ok(value) = HeaderValue::from_bytes(&text) else { continue };
        if value.is_empty() && !keep_empty {
            continue;
        }
        match (to.entry(name), action) {
            (Entry::Vacant(_), AppendAction::OverwriteIfExists)
            | (Entry::Occupied(_), AppendAction::AddIfAbsent) => {}
            (Entry::Vacant(entry), _) => drop(entry.insert(value)),
            (Entry::Occupied(mut entry), AppendAction::AppendIfExistsOrAdd) => entry.append(value),
            (Entry::Occupied(mut entry), _) => drop(entry.insert(value)),
        }
    }
}
