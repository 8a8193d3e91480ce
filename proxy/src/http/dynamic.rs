//! What filters say of a request for others to read: routes, other filters, logs (Envoy: dynamic metadata and filter
//! state).

use std::borrow::Cow;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::metadata::{Metadata, Values};

/// See the module. Without a filter that says something it takes no memory.
#[derive(Debug, Default)]
pub struct Dynamic {
    metadata: Option<Metadata>,
    /// By name; mostly but one or two.
    state: Vec<(Cow<'static, str>, Object)>,
}

/// An object of the filter state.
#[derive(Debug)]
enum Object {
    Value(Value),
    Live(Rc<dyn Live>),
}

/// What goes on changing while it is filter state, and is written down only for those who read it.
pub trait Live: Debug {
    /// What it is by now.
    fn value(&self) -> Value;
}

impl Dynamic {
    /// Dynamic metadata, if there is any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Merges `values` into what `namespace` of the dynamic metadata holds.
    pub fn merge(&mut self, namespace: impl Into<Cow<'static, str>>, values: Map<String, Value>) {
        self.metadata.get_or_insert_default().merge(namespace, values.into());
    }

    /// Merges what is shared with other requests, and not copied unless it has to be.
    pub fn note(&mut self, namespace: &'static str, values: Option<&Values>) {
        if let Some(values) = values {
            self.metadata.get_or_insert_default().merge(namespace, Arc::clone(values));
        }
    }

    /// The filter state called `name`.
    pub fn state(&self, name: &str) -> Option<Cow<'_, Value>> {
        Some(match self.object(name)? {
            Object::Value(value) => Cow::Borrowed(value),
            Object::Live(live) => Cow::Owned(live.value()),
        })
    }

    /// The filter state called `name`, if it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.object(name)? {
            Object::Value(value) => value.as_str(),
            Object::Live(_) => None,
        }
    }

    /// Sets the filter state called `name`.
    pub fn set_state(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        self.set(name.into(), Object::Value(value));
    }

    /// Sets the filter state called `name` to what is asked for its value by those who read it.
    pub fn set_live_state(&mut self, name: &'static str, live: Rc<dyn Live>) {
        self.set(name.into(), Object::Live(live));
    }

    fn object(&self, name: &str) -> Option<&Object> {
        self.state.iter().find(|(known, _)| known == name).map(|(_, object)| object)
    }

    fn set(&mut self, name: Cow<'static, str>, object: Object) {
        match self.state.iter_mut().find(|(known, _)| *known == name) {
            Some((_, held)) => *held = object,
            None => self.state.push((name, object)),
        }
    }
}
