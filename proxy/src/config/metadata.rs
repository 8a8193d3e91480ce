//! Metadata and conditions on it (Envoy `core.v3.Metadata`, `type.matcher.v3.MetadataMatcher`): values by namespace and path.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::matcher::StringMatcher;

/// What a namespace holds. Requests may share it.
pub type Values = Arc<Map<String, Value>>;

/// Structured values by namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// By name; mostly but one or two.
    namespaces: Vec<(Cow<'static, str>, Values)>,
}

impl Metadata {
    /// Sets what `namespace` holds, in place of what it held.
    pub fn set(&mut self, namespace: &str, values: Map<String, Value>) {
        match self.place(namespace) {
            Ok(held) => *held = values.into(),
            Err(place) => {
                self.namespaces.insert(place, (namespace.to_owned().into(), values.into()));
            }
        }
    }

    /// Merges `values` into what `namespace` holds: objects by key, lists by appending, anything else is
    /// replaced.
    pub fn merge(&mut self, namespace: impl Into<Cow<'static, str>>, values: Values) {
        let namespace = namespace.into();
        match self.place(&namespace) {
            Ok(held) if is_replaced(held, &values) => *held = values,
            Ok(held) => merge(Arc::make_mut(held), Arc::unwrap_or_clone(values)),
            Err(place) => self.namespaces.insert(place, (namespace, values)),
        }
    }

    /// What `namespace` holds, or where it belongs.
    fn place(&mut self, namespace: &str) -> Result<&mut Values, usize> {
        let place = self.namespaces.partition_point(|(name, _)| **name < *namespace);
        match self.namespaces.get_mut(place) {
            Some((name, values)) if **name == *namespace => Ok(values),
            _ => Err(place),
        }
    }

    /// All of it, as one object.
    pub fn to_json(&self) -> Value {
        self.namespaces
            .iter()
            .map(|(namespace, values)| {
                (namespace.to_string(), Value::from(values.as_ref().clone()))
            })
            .collect()
    }

    /// Everything, by namespace.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.namespaces.iter().map(|(namespace, values)| (&**namespace, &**values))
    }

    /// Everything below `namespace`, if it holds anything.
    pub fn namespace(&self, namespace: &str) -> Option<&Map<String, Value>> {
        let found = self.namespaces.iter().find(|(name, _)| **name == *namespace);
        found.map(|(_, values)| values.as_ref())
    }

    /// The value at `path` below `namespace`.
    pub fn get(&self, namespace: &str, path: &[Box<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let first = self.namespace(namespace)?.get(&**first)?;
        rest.iter().try_fold(first, |value, key| value.as_object()?.get(&**key))
    }
}

/// Whether nothing of `old` is left once `new` is merged into it.
fn is_replaced(old: &Map<String, Value>, new: &Map<String, Value>) -> bool {
    old.iter().all(|(key, value)| {
        new.contains_key(key) && !matches!(value, Value::Object(_) | Value::Array(_))
    })
}

fn merge(into: &mut Map<String, Value>, values: Map<String, Value>) {
    for (key, value) in values {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Metadata of a configuration, kept small until somebody reads it, which few do: as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed(Box<str>);

impl Packed {
    /// Packs `metadata`.
    pub fn new(metadata: &Metadata) -> Self {
        Self(metadata.to_json().to_string().into())
    }

    /// The metadata.
    pub fn unpack(&self) -> Metadata {
        // What was written as JSON is read back.
        let namespaces: Map<String, Value> = serde_json::from_str(&self.0).unwrap_or_default();
        let mut metadata = Metadata::default();
        for (namespace, values) in namespaces {
            if let Value::Object(values) = values {
                metadata.set(&namespace, values);
            }
        }
        metadata
    }
}

/// Whose metadata is meant (Envoy `%METADATA(TYPE:…)%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataOf {
    /// What filters have set for the request.
    Dynamic,
    /// Its route.
    Route,
    /// Its virtual host.
    VirtualHost,
    /// The cluster it goes to.
    Cluster,
    /// The endpoint it goes to.
    UpstreamHost,
    /// The listener it came by.
    Listener,
    /// The filter chain it came by.
    ListenerFilterChain,
}

/// Envoy `MetadataMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatcher {
    /// `filter`: the namespace.
    pub namespace: Box<str>,
    /// Keys from the outside in; at least one.
    pub path: Vec<Box<str>>,
    /// The condition.
    pub value: ValueMatcher,
    /// Whether the result is inverted.
    pub invert: bool,
}

impl MetadataMatcher {
    /// Whether `metadata` meets the condition; no metadata is like empty metadata.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|metadata| metadata.get(&self.namespace, &self.path));
        self.value.matches(value) != self.invert
    }
}

/// Envoy `ValueMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatcher {
    /// The value is there, and null.
    Null,
    /// A number in `start..end`.
    Range {
        /// First value that matches.
        start: f64,
        /// First value past the range.
        end: f64,
    },
    /// A number that equals this one.
    Number(f64),
    /// A text.
    String(StringMatcher),
    /// A truth value.
    Bool(bool),
    /// Any value; never, if false.
    Present(bool),
    /// A list with an element that matches.
    OneOf(Box<ValueMatcher>),
    /// One of them matches.
    Or(Vec<ValueMatcher>),
}

impl ValueMatcher {
    /// Whether `value` matches. Nothing matches an absent value.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return false };
        let number = || value.as_f64();
        match self {
            Self::Null => value.is_null(),
            Self::Range { start, end } => number().is_some_and(|it| (*start..*end).contains(&it)),
            Self::Number(wanted) => number().is_some_and(|it| it == *wanted),
            Self::String(matcher) => {
                value.as_str().is_some_and(|it| matcher.matches(it.as_bytes()))
            }
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::Present(wanted) => *wanted,
            Self::OneOf(element) => {
                value.as_array().is_some_and(|list| list.iter().any(|it| element.matches(Some(it))))
            }
            Self::Or(choices) => choices.iter().any(|choice| choice.matches(Some(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::matcher::StringPattern;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_value_is_found_by_namespace_and_path() {
        let mut metadata = Metadata::default();
        metadata.set("a", object(&json!({"x": {"y": 1}, "z": "text"})));
        let path = |keys: &[&str]| keys.iter().map(|key| (*key).into()).collect::<Vec<Box<str>>>();
        assert_eq!(metadata.get("a", &path(&["x", "y"])), Some(&json!(1)));
        for (namespace, keys) in [("b", &["x"][..]), ("a", &["z", "y"]), ("a", &["q"]), ("a", &[])]
        {
            assert_eq!(metadata.get(namespace, &path(keys)), None);
        }
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let mut metadata = Metadata::default();
        metadata.set("a", object(&json!({"x": {"y": [1.5, null]}})));
        metadata.set("b", Map::new());
        assert_eq!(Packed::new(&metadata).unpack(), metadata);
    }

    #[test]
    fn merging_goes_by_kind() {
        let mut metadata = Metadata::default();
        metadata.set("a", object(&json!({"o": {"x": 1}, "l": [1], "s": "old"})));
        let new = json!({"o": {"y": 2}, "l": [2], "s": "new", "n": null});
        metadata.merge("a", object(&new).into());
        let merged = json!({"o": {"x": 1, "y": 2}, "l": [1, 2], "s": "new", "n": null});
        assert_eq!(metadata.namespace("a"), Some(&object(&merged)));
        metadata.merge("b", object(&json!({"x": 1})).into());
        let shared = Arc::new(object(&json!({"x": 2, "y": 3})));
        metadata.merge("b", Arc::clone(&shared));
        assert_eq!(metadata.namespace("b"), Some(&*shared));
        metadata.merge("b", object(&json!({"x": 4})).into());
        assert_eq!(metadata.namespace("b"), Some(&object(&json!({"x": 4, "y": 3}))));
        assert_eq!(shared["x"], 2, "others have it, too");
    }

    #[test]
    fn every_kind_of_value_has_its_matcher() {
        let text =
            ValueMatcher::String(StringMatcher::new(StringPattern::Exact("a".into()), false));
        let cases = [
            (ValueMatcher::Null, json!(null), json!(0)),
            (ValueMatcher::Range { start: 1.0, end: 2.0 }, json!(1.5), json!(2)),
            (ValueMatcher::Number(3.0), json!(3), json!("3")),
            (text.clone(), json!("a"), json!(["a"])),
            (ValueMatcher::Bool(false), json!(false), json!(null)),
            (ValueMatcher::OneOf(Box::new(text.clone())), json!(["b", "a"]), json!("a")),
            (ValueMatcher::Or(vec![ValueMatcher::Null, text]), json!("a"), json!("b")),
        ];
        for (matcher, good, bad) in cases {
            assert!(matcher.matches(Some(&good)), "{matcher:?} {good}");
            assert!(!matcher.matches(Some(&bad)), "{matcher:?} {bad}");
            assert!(!matcher.matches(None), "{matcher:?}");
        }
        assert!(ValueMatcher::Present(true).matches(Some(&json!(0))));
        assert!(!ValueMatcher::Present(false).matches(Some(&json!(0))));
    }

    #[test]
    fn inversion_makes_absence_match() {
        let matcher = |invert| MetadataMatcher {
            namespace: "a".into(),
            path: vec!["x".into()],
            value: ValueMatcher::Present(true),
            invert,
        };
        assert!(!matcher(false).matches(None));
        assert!(matcher(true).matches(Some(&Metadata::default())));
    }
}
