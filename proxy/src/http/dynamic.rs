//! What filters say of a request for others to read: routes, other filters, logs (Envoy: dynamic metadata and filter
//! state).

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::HashMap;
use crate::config::metadata::{Metadata, Values};

/// See the module. Without a filter that says something it takes no memory.
#[derive(Debug, Default)]
pub struct Dynamic {
    metadata: Option<Box<Metadata>>,
    state: Option<Box<HashMap<Box<str>, Value>>>,
}

impl Dynamic {
    /// Dynamic metadata, if there is any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// Merges `values` into what `namespace` of the dynamic metadata holds.
    pub fn merge(&mut self, namespace: &str, values: Map<String, Value>) {
        self.metadata.get_or_insert_default().merge(namespace, values.into());
    }

    /// Merges what is shared with other requests, and not copied unless it has to be.
    pub fn note(&mut self, namespace: &str, values: Option<&Values>) {
        if let Some(values) = values {
            self.metadata.get_or_insert_default().merge(namespace, Arc::clone(values));
        }
    }

    /// The filter state called `name`.
    pub fn state(&self, name: &str) -> Option<&Value> {
        self.state.as_ref()?.get(name)
    }

    /// The filter state called `name`, to be changed.
    pub fn state_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.state.as_mut()?.get_mut(name)
    }

    /// Sets the filter state called `name`.
    pub fn set_state(&mut self, name: &str, value: Value) {
        self.state.get_or_insert_default().insert(name.into(), value);
    }
}
