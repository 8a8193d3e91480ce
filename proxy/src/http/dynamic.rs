//! What filters say of a request for others to read: routes, other filters, logs (Envoy: dynamic metadata and filter
//! state).

use serde_json::{Map, Value};

use crate::config::HashMap;
use crate::config::metadata::Metadata;

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
        self.metadata.get_or_insert_default().merge(namespace, values);
    }

    /// The filter state called `name`.
    pub fn state(&self, name: &str) -> Option<&Value> {
        self.state.as_ref()?.get(name)
    }

    /// Sets the filter state called `name`.
    pub fn set_state(&mut self, name: &str, value: Value) {
        self.state.get_or_insert_default().insert(name.into(), value);
    }
}
