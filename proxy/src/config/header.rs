//! Changes to headers as data (Envoy `core.v3.HeaderValueOption`, `*_headers_to_remove`).

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, InvalidHeaderValue};

use super::format::{Facts, Format, Operator};
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
    pub value: HeaderText,
    /// What to do when it exists.
    pub action: AppendAction,
    /// Whether an empty value is still added.
    pub keep_empty: bool,
}

impl HeaderToAdd {
    /// The value for these facts; none if it is empty and not to be kept, or cannot be sent.
    pub fn value(&self, facts: &dyn Facts) -> Option<HeaderValue> {
        let value = match &self.value {
            HeaderText::Constant(value) => value.clone(),
            HeaderText::Formatted(format) => {
                let mut text = Vec::new();
                format.render(facts, "", &mut text);
                HeaderValue::from_maybe_shared(Bytes::from(text)).ok()?
            }
        };
        (self.keep_empty || !value.is_empty()).then_some(value)
    }
}

/// What a header is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderText {
    /// Always the same.
    Constant(HeaderValue),
    /// What a request or its answer make of it.
    Formatted(Format),
}

impl HeaderText {
    /// What `format` says.
    ///
    /// # Errors
    /// If it is always the same, and cannot be sent.
    pub fn new(format: Format) -> Result<Self, InvalidHeaderValue> {
        match format.literal() {
            Some(text) => HeaderValue::from_str(text).map(Self::Constant),
            None => Ok(Self::Formatted(format)),
        }
    }

    /// The operators in it.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        let format = match self {
            Self::Constant(_) => None,
            Self::Formatted(format) => Some(format),
        };
        format.into_iter().flat_map(Format::operators)
    }
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
