//! Services that the proxy itself asks: `GrpcService`, `HttpUri`, `HttpService`.

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};
use xds::envoy::config::core::v3 as proto;
use xds::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;

use super::errors::{At, Result, each, refuse, required};
use super::header::{key_and_value, to_add};
use super::value::{duration, header_name, name, non_empty, positive_duration, unless_empty};
use crate::config::service::{GrpcService, HttpService, HttpUri};

/// A gRPC service of a cluster.
pub(super) fn grpc_service(proto: &proto::GrpcService) -> Result<GrpcService> {
    let proto::GrpcService { target_specifier, timeout, initial_metadata } = proto;
    let TargetSpecifier::EnvoyGrpc(envoy_grpc) = required("envoy_grpc", target_specifier)?;
    let EnvoyGrpc { cluster_name, authority, skip_envoy_headers: _ } = envoy_grpc;
    let cluster = name("envoy_grpc.cluster_name", cluster_name)?;
    let authority = unless_empty(authority).unwrap_or_else(|| (*cluster).into());
    Ok(GrpcService {
        authority: header_value(&authority).at("envoy_grpc.authority")?,
        cluster,
        timeout: positive_duration("timeout", timeout.as_ref())?,
        metadata: each("initial_metadata", initial_metadata, metadata)?,
    })
}

fn metadata(proto: &proto::HeaderValue) -> Result<(HeaderName, HeaderValue)> {
    let (key, value) = key_and_value(proto)?;
    if value.contains('%') {
        return refuse("value", "command operators are not supported here");
    }
    Ok((header_name(key).at("key")?, header_value(value).at("value")?))
}

fn header_value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| "cannot stand in a header".to_owned()).at("")
}

/// An HTTP service of a cluster.
pub(super) fn http_service(proto: &proto::HttpService) -> Result<HttpService> {
    let proto::HttpService { http_uri: uri, request_headers_to_add } = proto;
    Ok(HttpService {
        uri: http_uri(required("http_uri", uri)?).at("http_uri")?,
        headers: each("request_headers_to_add", request_headers_to_add, to_add)?,
    })
}

/// Where an HTTP service is.
pub(super) fn http_uri(proto: &proto::HttpUri) -> Result<HttpUri> {
    let proto::HttpUri { uri, http_upstream_type, timeout } = proto;
    let HttpUpstreamType::Cluster(cluster) = required("cluster", http_upstream_type)?;
    // Envoy takes what has no scheme for a host and a path.
    let text = non_empty("uri", uri)?;
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let path: PathAndQuery = match path.parse() {
        Ok(path) => path,
        Err(error) => return refuse("uri", format!("`{uri}`: {error}")),
    };
    if host.parse::<Uri>().is_err() {
        return refuse("uri", format!("`{uri}` names no host"));
    }
    Ok(HttpUri {
        host: header_value(host).at("uri")?,
        path: path.as_str().into(),
        cluster: name("cluster", cluster)?,
        timeout: duration(required("timeout", timeout)?).at("timeout")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Result<HttpUri> {
        http_uri(&proto::HttpUri {
            uri: text.to_owned(),
            http_upstream_type: Some(HttpUpstreamType::Cluster("c".to_owned())),
            timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        })
    }

    #[test]
    fn a_uri_is_a_host_and_a_path() {
        for (text, host, path) in [
            ("http://a.example:80/keys?x=1", "a.example:80", "/keys?x=1"),
            ("a.example/keys", "a.example", "/keys"),
            ("https://a.example", "a.example", "/"),
        ] {
            let uri = uri(text).unwrap();
            assert_eq!((uri.host.to_str().unwrap(), &*uri.path), (host, path), "{text}");
        }
        assert!(uri("").is_err());
        assert!(uri("http:///x").is_err());
    }
}
