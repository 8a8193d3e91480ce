//! Envoy's `VirtualHost` and `Route`.

use serde_json::{Value, json};

use super::{set, typed};

/// A virtual host under construction.
#[derive(Debug, Clone)]
pub struct VirtualHost {
    value: Value,
}

impl VirtualHost {
    /// A virtual host for `domains`.
    pub fn new<const N: usize>(
        name: &str,
        domains: [&str; N],
        routes: impl IntoIterator<Item = Route>,
    ) -> Self {
        let routes: Vec<Value> = routes.into_iter().map(Value::from).collect();
        Self { value: json!({"name": name, "domains": domains.to_vec(), "routes": routes}) }
    }

    /// Sets the field at a dotted `path` of the virtual host.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }
}

impl From<VirtualHost> for Value {
    fn from(host: VirtualHost) -> Self {
        host.value
    }
}

/// A route under construction: a match, then an action.
#[derive(Debug, Clone)]
pub struct Route {
    value: Value,
}

impl Route {
    /// Paths that begin with `prefix`.
    pub fn prefix(prefix: &str) -> Self {
        Self::matching(json!({"prefix": prefix}))
    }

    /// Exactly this path.
    pub fn path(path: &str) -> Self {
        Self::matching(json!({"path": path}))
    }

    /// Requests that this `RouteMatch` takes.
    pub fn matching(matching: Value) -> Self {
        let mut value = json!({});
        value["match"] = matching;
        Self { value }
    }

    /// Only if header `name` is exactly `value`.
    #[must_use]
    pub fn when_header(self, name: &str, value: &str) -> Self {
        let matcher = json!({"name": name, "string_match": {"exact": value}});
        self.with("match.headers", json!([matcher]))
    }

    /// Forwards to `cluster`.
    #[must_use]
    pub fn to(self, cluster: &str) -> Self {
        self.with("route.cluster", cluster)
    }

    /// Forwards to clusters by weight.
    #[must_use]
    pub fn to_weighted<const N: usize>(self, shares: [(&str, u32); N]) -> Self {
        let clusters = shares.map(|(name, weight)| json!({"name": name, "weight": weight}));
        self.with("route.weighted_clusters.clusters", clusters.to_vec())
    }

    /// Answers by itself.
    #[must_use]
    pub fn direct(self, status: u16, body: &str) -> Self {
        let body = json!({"inline_string": body});
        self.with("direct_response", json!({"status": status, "body": body}))
    }

    /// Redirects with this `RedirectAction`.
    #[must_use]
    pub fn redirect(self, action: Value) -> Self {
        self.with("redirect", action)
    }

    /// Retries with this `RetryPolicy`.
    #[must_use]
    pub fn retry(self, policy: Value) -> Self {
        self.with("route.retry_policy", policy)
    }

    /// Tells a filter something, by the end of its message's name, such as `cors.v3.CorsPolicy`.
    #[must_use]
    pub fn tell(mut self, filter: &str, message: &str, fields: impl Into<Value>) -> Self {
        let message = format!("envoy.extensions.filters.http.{message}");
        self.value["typed_per_filter_config"][filter] = typed(&message, fields.into());
        self
    }

    /// Sets the field at a dotted `path` of the route.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.value, path, value.into());
        self
    }
}

impl From<Route> for Value {
    fn from(route: Route) -> Self {
        route.value
    }
}
