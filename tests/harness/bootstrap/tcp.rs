//! Envoy's `TcpProxy`.

use std::path::Path;

use serde_json::{Value, json};

use super::log::{file_log, text_format};
use super::{Filters, set, typed};

/// A TCP proxy under construction.
#[derive(Debug, Clone)]
pub struct Tcp {
    value: Value,
}

impl Tcp {
    /// Connections go to `cluster`.
    pub fn to(cluster: &str) -> Self {
        Self::new(json!({"cluster": cluster}))
    }

    /// Connections go to clusters by weight.
    pub fn to_weighted<const N: usize>(shares: [(&str, u32); N]) -> Self {
        let clusters = shares.map(|(name, weight)| json!({"name": name, "weight": weight}));
        Self::new(json!({"weighted_clusters": {"clusters": clusters.to_vec()}}))
    }

    fn new(mut value: Value) -> Self {
        value["stat_prefix"] = "main".into();
        Self { value: typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", value) }
    }

    /// Logs to `file` with this text format; a line break is added.
    #[must_use]
    pub fn text_log(self, file: &Path, format: &str) -> Self {
        self.with("access_log", json!([file_log(text_format(file, format))]))
    }

    /// Sets the field at a dotted `path` of the TCP proxy.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }

    /// Puts Envoy's network filter `name`, configured by its message `message`, before it.
    #[must_use]
    pub fn after(self, name: &str, message: &str, config: Value) -> Filters {
        Filters::from(self).after(name, message, config)
    }
}

impl From<Tcp> for Value {
    fn from(tcp: Tcp) -> Self {
        tcp.value
    }
}
