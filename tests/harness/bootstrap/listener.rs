//! Envoy's `Listener` and its `HttpConnectionManager`.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::log::{file_log, text_format};
use super::{Route, Tcp, VirtualHost, set, socket_address, typed};

const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// A listener under construction.
#[derive(Debug, Clone)]
pub struct Listener {
    name: String,
    value: Value,
}

impl Listener {
    /// A listener with one filter chain of these filters.
    pub fn new(name: &str, filters: impl Into<Filters>) -> Self {
        let value = json!({"name": name, "filter_chains": [chain(filters)]});
        Self { name: name.to_owned(), value }
    }

    /// Terminates TLS in the first chain with this `DownstreamTlsContext`.
    #[must_use]
    pub fn tls(self, context: Value) -> Self {
        self.with("filter_chains.0.transport_socket", tls_socket(context))
    }

    /// Adds a filter chain with a `FilterChainMatch`, in front of those without one.
    #[must_use]
    pub fn chain(
        mut self,
        matching: Value,
        tls: Option<Value>,
        filters: impl Into<Filters>,
    ) -> Self {
        let mut chain = chain(filters);
        chain["filter_chain_match"] = matching;
        if let Some(context) = tls {
            chain["transport_socket"] = tls_socket(context);
        }
        self.value["filter_chains"].as_array_mut().expect("set in new()").push(chain);
        self
    }

    /// Adds the listener filter that reads the SNI and ALPN of a ClientHello.
    #[must_use]
    pub fn tls_inspector(self) -> Self {
        self.listener_filter("tls_inspector", "TlsInspector", json!({}))
    }

    /// Adds Envoy's listener filter `name`, configured by its message `message`.
    #[must_use]
    pub fn listener_filter(mut self, name: &str, message: &str, config: Value) -> Self {
        let config =
            typed(&format!("envoy.extensions.filters.listener.{name}.v3.{message}"), config);
        let name = format!("envoy.filters.listener.{name}");
        let filter = json!({"name": name, "typed_config": config});
        match self.value["listener_filters"].as_array_mut() {
            Some(filters) => filters.push(filter),
            None => self.value["listener_filters"] = json!([filter]),
        }
        self
    }

    /// Sets the field at a dotted `path` of the listener.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The finished listener, at `address` unless it was given one.
    pub fn at(mut self, address: SocketAddr) -> Value {
        if self.value["address"].is_null() {
            self.value["address"] = socket_address(address);
        }
        self.value
    }
}

fn chain(filters: impl Into<Filters>) -> Value {
    let Filters(filters) = filters.into();
    json!({"filters": filters})
}

/// The network filters of a chain.
#[derive(Debug, Clone)]
pub struct Filters(Vec<Value>);

impl Filters {
    /// Puts Envoy's network filter `name`, configured by its message `message`, before the others.
    #[must_use]
    pub fn after(self, name: &str, message: &str, config: Value) -> Self {
        let config =
            typed(&format!("envoy.extensions.filters.network.{name}.v3.{message}"), config);
        let filter =
            json!({"name": format!("envoy.filters.network.{name}"), "typed_config": config});
        self.first(filter)
    }

    /// Puts this filter before the others.
    #[must_use]
    pub fn first(mut self, filter: Value) -> Self {
        self.0.insert(0, filter);
        self
    }

    /// Puts these filters before the others.
    #[must_use]
    pub fn behind(mut self, filters: Vec<Value>) -> Self {
        self.0.splice(0..0, filters);
        self
    }
}

impl From<Http> for Filters {
    fn from(http: Http) -> Self {
        let name = "envoy.filters.network.http_connection_manager";
        Self(vec![json!({"name": name, "typed_config": Value::from(http)})])
    }
}

impl From<Tcp> for Filters {
    fn from(tcp: Tcp) -> Self {
        let name = "envoy.filters.network.tcp_proxy";
        Self(vec![json!({"name": name, "typed_config": Value::from(tcp)})])
    }
}

fn tls_socket(context: Value) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": typed(TLS, context)})
}

/// An HTTP connection manager under construction; its last filter is the router.
#[derive(Debug, Clone)]
pub struct Http {
    value: Value,
}

impl Http {
    /// One virtual host named `all` that takes every host to `routes`.
    pub fn routing(routes: impl IntoIterator<Item = Route>) -> Self {
        Self::hosting([VirtualHost::new("all", ["*"], routes)])
    }

    /// These virtual hosts.
    pub fn hosting(hosts: impl IntoIterator<Item = VirtualHost>) -> Self {
        let hosts: Vec<Value> = hosts.into_iter().map(Value::from).collect();
        Self::new(json!({"route_config": {"name": "inline", "virtual_hosts": hosts}}))
    }

    /// Routes that the file at `path` brings under `name` (RDS).
    pub fn routes_from_file(name: &str, path: &Path) -> Self {
        let source = json!({"path_config_source": {"path": path}, "resource_api_version": "V3"});
        Self::new(json!({"rds": {"route_config_name": name, "config_source": source}}))
    }

    fn new(mut value: Value) -> Self {
        let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
        value["stat_prefix"] = "main".into();
        value["http_filters"] =
            json!([{"name": "envoy.filters.http.router", "typed_config": router}]);
        Self { value: typed(MANAGER, value) }
    }

    /// One more filter before the router, by the end of its message's name, such as `cors.v3.Cors`.
    #[must_use]
    pub fn filter(mut self, name: &str, message: &str, fields: impl Into<Value>) -> Self {
        let message = format!("envoy.extensions.filters.http.{message}");
        let filter = json!({"name": name, "typed_config": typed(&message, fields.into())});
        let filters = self.value["http_filters"].as_array_mut().unwrap();
        filters.insert(filters.len() - 1, filter);
        self
    }

    /// Logs to `file` with this text format; a line break is added.
    #[must_use]
    pub fn text_log(self, file: &Path, format: &str) -> Self {
        self.file_log(text_format(file, format))
    }

    /// Logs with this `FileAccessLog`.
    #[must_use]
    pub fn file_log(self, config: Value) -> Self {
        self.with("access_log", json!([file_log(config)]))
    }

    /// Sets the field at a dotted `path` of the connection manager.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }
}

impl From<Http> for Value {
    fn from(http: Http) -> Self {
        http.value
    }
}
