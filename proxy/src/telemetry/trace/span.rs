//! One span as it is reported, whoever collects it.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::TraceContext;

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// Which side of a request it is.
    pub kind: Kind,
    /// Its place in its trace.
    pub context: TraceContext,
    /// What `tracestate` said; empty if it said nothing.
    pub trace_state: String,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What it says.
    pub tags: Tags,
    /// What happened when.
    pub events: Vec<(SystemTime, &'static str)>,
}

/// Which side of a request a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one that serves it.
    Server,
    /// The one that sends it.
    Client,
}

/// A name.
pub type Key = Cow<'static, str>;

/// What a span says: each name once, in the order in which they were first set.
#[derive(Debug, Clone, Default)]
pub struct Tags(Vec<(Key, Cow<'static, str>)>);

impl Tags {
    /// Sets a tag, in place of the one of this name.
    pub fn set(&mut self, name: impl Into<Key>, value: impl Into<Cow<'static, str>>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// All tags.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Names of tags, as Envoy calls them.
pub mod tag {
    /// Always `proxy`.
    pub const COMPONENT: &str = "component";
    /// The proxy's node id.
    pub const NODE_ID: &str = "node_id";
    /// The proxy's zone.
    pub const ZONE: &str = "zone";
    /// `x-request-id`
    pub const REQUEST_ID: &str = "guid:x-request-id";
    /// `x-client-trace-id`
    pub const CLIENT_TRACE_ID: &str = "guid:x-client-trace-id";
    /// The URL as it came.
    pub const URL: &str = "http.url";
    /// The method.
    pub const METHOD: &str = "http.method";
    /// The version of HTTP.
    pub const PROTOCOL: &str = "http.protocol";
    /// The status, 0 if there was none.
    pub const STATUS: &str = "http.status_code";
    /// The calling service's cluster.
    pub const DOWNSTREAM_CLUSTER: &str = "downstream_cluster";
    /// `user-agent`
    pub const USER_AGENT: &str = "user_agent";
    /// The other side's address.
    pub const PEER_ADDRESS: &str = "peer.address";
    /// The endpoint's address.
    pub const UPSTREAM_ADDRESS: &str = "upstream_address";
    /// The cluster's name.
    pub const UPSTREAM_CLUSTER: &str = "upstream_cluster";
    /// The cluster's name in statistics.
    pub const UPSTREAM_CLUSTER_NAME: &str = "upstream_cluster.name";
    /// Bytes of the request's body.
    pub const REQUEST_SIZE: &str = "request_size";
    /// Bytes of the response's body.
    pub const RESPONSE_SIZE: &str = "response_size";
    /// Envoy's response flags.
    pub const RESPONSE_FLAGS: &str = "response_flags";
    /// `true` if it failed.
    pub const ERROR: &str = "error";
    /// Why it failed.
    pub const ERROR_REASON: &str = "error.reason";
    /// `true` if it was given up.
    pub const CANCELED: &str = "canceled";
    /// How often it had been tried before.
    pub const RETRY_COUNT: &str = "retry.count";
    /// The path of a gRPC call.
    pub const GRPC_PATH: &str = "grpc.path";
    /// The host of a gRPC call.
    pub const GRPC_AUTHORITY: &str = "grpc.authority";
    /// The content type of a gRPC call.
    pub const GRPC_CONTENT_TYPE: &str = "grpc.content_type";
    /// The timeout of a gRPC call.
    pub const GRPC_TIMEOUT: &str = "grpc.timeout";
    /// The status of a gRPC call.
    pub const GRPC_STATUS: &str = "grpc.status_code";
    /// The message of a gRPC call.
    pub const GRPC_MESSAGE: &str = "grpc.message";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_once() {
        let mut tags = Tags::default();
        tags.set("a", "1");
        tags.set("b", "2");
        tags.set("a".to_owned(), "3".to_owned());
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!(tags.get("b"), Some("2"));
        assert_eq!(tags.get("c"), None);
    }
}
