//! `GRPCRoute`: matches, filters and backends of gRPC calls.

use serde::Deserialize;

use super::http_route::{
    HeaderMatchType, HttpBackendRef, HttpHeaderMatch, HttpRouteFilter, SessionPersistence,
};
use super::reference::{DefaultScope, ParentReference};

/// Rules for calls to hostnames at the parents' listeners.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRoute {
    pub parent_refs: Vec<ParentReference>,
    pub use_default_gateways: DefaultScope,
    pub hostnames: Vec<String>,
    pub rules: Vec<GrpcRouteRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteRule {
    pub name: Option<String>,
    pub matches: Vec<GrpcRouteMatch>,
    pub filters: Vec<HttpRouteFilter>,
    pub backend_refs: Vec<HttpBackendRef>,
    pub session_persistence: Option<SessionPersistence>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcRouteMatch {
    pub method: Option<GrpcMethodMatch>,
    pub headers: Vec<HttpHeaderMatch>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcMethodMatch {
    pub r#type: HeaderMatchType,
    pub service: Option<String>,
    pub method: Option<String>,
}
