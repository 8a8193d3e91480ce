//! The parameters of a query, as filters change them. As in Envoy they are sorted by name then.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A path and the parameters of its query, which stand as they do on the wire.
#[derive(Debug)]
pub struct Query<'a> {
    path: &'a str,
    parameters: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
}

impl<'a> Query<'a> {
    /// The parameters of `target`.
    pub fn of(target: &'a str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parameters: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.entry(Cow::Borrowed(name)).or_default().push(Cow::Borrowed(value));
        }
        Self { path, parameters }
    }

    /// Whether there is one called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    /// One more called `name`.
    pub fn add(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.parameters.entry(name.into()).or_default().push(value.into());
    }

    /// One called `name`, in place of all that are.
    pub fn set(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.parameters.insert(name.into(), vec![value.into()]);
    }

    /// None called `name`.
    pub fn remove(&mut self, name: &str) {
        self.parameters.remove(name);
    }

    /// The path with these parameters.
    pub fn target(&self) -> String {
        let mut target = self.path.to_owned();
        let pairs = self.parameters.iter();
        let pairs = pairs.flat_map(|(name, values)| values.iter().map(move |it| (name, it)));
        for (nth, (name, value)) in pairs.enumerate() {
            target.push(if nth == 0 { '?' } else { '&' });
            target.extend([name, "=", value]);
        }
        target
    }
}
