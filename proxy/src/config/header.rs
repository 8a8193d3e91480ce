//! Changes to headers as data (Envoy `core.v3.HeaderValueOption`, `*_headers_to_remove`).

use http::header::HeaderName;

use super::format::Format;
use super::matcher::StringMatcher;

/// What to do when the header exists already (Envoy `HeaderAppendAction`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// Add another field beside the existing ones.
    #[default]
    AppendIfExistsOrAdd,
    /// Add only when absent.
    AddIfAbsent,
    /// Replace all, or add.
    OverwriteIfExistsOrAdd,
    /// Replace all; do nothing when absent.
    OverwriteIfExists,
}

/// One header to add.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderToAdd {
    /// Its name; `host` and `:authority`, `:path`, `:method` are refused at decoding.
    pub name: HeaderName,
    /// Its value.
    pub value: Format,
    /// What to do when it exists.
    pub action: AppendAction,
    /// Whether an empty value is still added.
    pub keep_empty: bool,
}

/// One of several changes that are made one after the other (Envoy `config.common.mutation_rules.v3.HeaderMutation`).
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderChange {
    /// `remove`
    Remove(HeaderName),
    /// `remove_on_match`: every header whose name matches.
    RemoveMatching(StringMatcher),
    /// `append`
    Add(HeaderToAdd),
}

/// Headers to add and to remove at one level (route table, virtual host, route, weighted cluster).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderMutations {
    /// Added in order.
    pub add: Vec<HeaderToAdd>,
    /// Removed before adding.
    pub remove: Vec<HeaderName>,
}

impl HeaderMutations {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}
