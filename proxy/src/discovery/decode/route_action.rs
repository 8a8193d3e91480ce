//! Forwarding: which cluster, what changes on the way, and how long it may take.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prost_types::Duration as Proto;
use serde_json::{Map, Value};
use xds::envoy::config::core::v3::RoutingPriority;
use xds::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier as ClusterKind, HostRewriteSpecifier,
    MaxStreamDuration, UpgradeConfig,
};
use xds::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as WeightedHostRewrite;
use xds::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use xds::envoy::config::route::v3::{RouteAction, WeightedCluster};
use xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::errors::{At, Result, each, optional, refuse, required};
use super::hash_policy;
use super::header::mutations;
use super::http_filter::per_filter_config;
use super::http_options::upgrades;
use super::internal_redirect::internal_redirect;
use super::matcher::header_ref;
use super::mirror::mirrors;
use super::rate_limit::rate_limits;
use super::retry::retry_policy;
use super::rewrite::regex_rewrite;
use super::subset;
use super::value::{
    enumeration, header_name, limit, name, optional_duration, unless_empty, unless_zero,
};
use crate::config;
use crate::config::format::Format;
use crate::config::route::{
    ClusterSpecifier, ClusterTarget, GrpcTimeout, HostRewrite, PathRewrite, Priority, RandomValue,
    StreamDuration, WeightedClusters,
};
use crate::config::subset::MetadataMatch;

/// Envoy's default for a route's timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// What the route wants of endpoints.
type Wanted<'a> = Option<&'a Map<String, Value>>;

/// What a forwarding route does.
pub(super) fn route_action(proto: &RouteAction) -> Result<config::route::RouteAction> {
    let RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        retry_policy: retry,
        request_mirror_policies,
        priority,
        rate_limits: limits,
        include_vh_rate_limits,
        hash_policy: hash_policies,
        upgrade_configs,
        max_grpc_timeout,
        grpc_timeout_offset,
        internal_redirect_policy,
        max_stream_duration: stream,
        cluster_specifier,
        host_rewrite_specifier,
    } = proto;
    let wanted = subset::wanted(metadata_match.as_ref());
    Ok(config::route::RouteAction {
        cluster: cluster(cluster_specifier.as_ref(), wanted.as_ref())?,
        metadata_match: wanted.as_ref().map(|wanted| Arc::new(MetadataMatch::new(wanted))),
        cluster_not_found_status: not_found_status(*cluster_not_found_response_code)?,
        path_rewrite: path(prefix_rewrite, regex_rewrite.as_ref(), path_rewrite)?,
        host_rewrite: host(host_rewrite_specifier.as_ref())?,
        append_x_forwarded_host: *append_x_forwarded_host,
        // As in Envoy, one who says how long streams live has no use for the other timeout.
        timeout: limit("timeout", timeout.as_ref(), Some(DEFAULT_TIMEOUT))?
            .filter(|_| stream.is_none()),
        idle_timeout: optional_duration("idle_timeout", idle_timeout.as_ref())?.map(unless_zero),
        stream_duration: optional("max_stream_duration", stream, stream_duration)?,
        grpc_timeout: grpc_timeout(max_grpc_timeout.as_ref(), grpc_timeout_offset.as_ref())?,
        retry_policy: optional("retry_policy", retry, retry_policy)?.map(Arc::new),
        internal_redirect: optional(
            "internal_redirect_policy",
            internal_redirect_policy,
            internal_redirect,
        )?
        .map(Box::new),
        mirrors: mirrors(request_mirror_policies)?,
        priority: match enumeration("priority", *priority)? {
            RoutingPriority::Default => Priority::Default,
            RoutingPriority::High => Priority::High,
        },
        hash_policies: hash_policy::hash_policies("hash_policy", hash_policies)?,
        upgrades: upgrades(upgrade_configs, |UpgradeConfig { upgrade_type, enabled }| {
            (upgrade_type, *enabled)
        })?,
        rate_limits: rate_limits(limits)?,
        include_vh_rate_limits: include_vh_rate_limits.unwrap_or(false),
    })
}

fn stream_duration(proto: &MaxStreamDuration) -> Result<StreamDuration> {
    let MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset: offset,
    } = proto;
    let limit = optional_duration("max_stream_duration", max_stream_duration.as_ref())?;
    let max = optional_duration("grpc_timeout_header_max", grpc_timeout_header_max.as_ref())?;
    let offset = optional_duration("grpc_timeout_header_offset", offset.as_ref())?;
    Ok(StreamDuration {
        limit: limit.map(unless_zero),
        grpc_max: max.map(unless_zero),
        grpc_offset: offset.unwrap_or_default(),
    })
}

fn grpc_timeout(max: Option<&Proto>, offset: Option<&Proto>) -> Result<Option<GrpcTimeout>> {
    let max = optional_duration("max_grpc_timeout", max)?;
    let offset = optional_duration("grpc_timeout_offset", offset)?.unwrap_or_default();
    Ok(max.map(|max| GrpcTimeout { max: unless_zero(max), offset }))
}

fn not_found_status(proto: i32) -> Result<StatusCode> {
    Ok(match enumeration("cluster_not_found_response_code", proto)? {
        ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
        ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

fn cluster(proto: Option<&ClusterKind>, wanted: Wanted<'_>) -> Result<ClusterSpecifier> {
    Ok(match proto {
        Some(ClusterKind::Cluster(text)) => ClusterSpecifier::Name(name("cluster", text)?),
        Some(ClusterKind::ClusterHeader(text)) => {
            ClusterSpecifier::Header(header_ref(text).at("cluster_header")?)
        }
        Some(ClusterKind::WeightedClusters(proto)) => {
            ClusterSpecifier::Weighted(weighted_clusters(proto, wanted).at("weighted_clusters")?)
        }
        None => return refuse("", "required: cluster, cluster_header or weighted_clusters"),
    })
}

fn weighted_clusters(proto: &WeightedCluster, wanted: Wanted<'_>) -> Result<WeightedClusters> {
    let WeightedCluster {
        clusters,
        total_weight: _,
        runtime_key_prefix: _,
        random_value_specifier,
    } = proto;
    let clusters = each("clusters", clusters, |proto| weighted_cluster(proto, wanted))?;
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total == 0 {
        return refuse("clusters", "the sum of the weights must be greater than 0");
    }
    if total > u64::from(u32::MAX) {
        return refuse("clusters", format!("the sum of the weights exceeds {}", u32::MAX));
    }
    let random_value = match random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) => {
            RandomValue::Header(header_name(name).at("header_name")?)
        }
        Some(RandomValueSpecifier::UseHashPolicy(true)) => RandomValue::HashPolicy,
        Some(RandomValueSpecifier::UseHashPolicy(false)) | None => RandomValue::Drawn,
    };
    Ok(WeightedClusters { clusters, total, random_value })
}

fn weighted_cluster(
    proto: &ClusterWeight,
    route: Wanted<'_>,
) -> Result<config::route::WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = proto;
    let filters = per_filter_config(typed_per_filter_config)?;
    let target = match (name.as_str(), cluster_header.as_str()) {
        ("", "") => return refuse("", "name or cluster_header is required"),
        (name, "") => ClusterTarget::Name(name.into()),
        ("", header) => ClusterTarget::Header(header_ref(header).at("cluster_header")?),
        _ => return refuse("", "only one of name and cluster_header may be set"),
    };
    Ok(config::route::WeightedCluster {
        filters,
        target,
        metadata_match: subset::over(route, metadata_match.as_ref()),
        weight: *required("weight", weight)?,
        request_headers: mutations("request", request_headers_to_add, request_headers_to_remove)?,
        response_headers: mutations(
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        host_rewrite: match host_rewrite_specifier {
            Some(WeightedHostRewrite::HostRewriteLiteral(host)) => unless_empty(host),
            None => None,
        },
    })
}

fn path(prefix: &str, regex: Option<&RegexMatchAndSubstitute>, full: &str) -> Result<PathRewrite> {
    Ok(match (prefix, regex, full) {
        ("", None, "") => PathRewrite::None,
        (prefix, None, "") => PathRewrite::Prefix(prefix.into()),
        ("", Some(proto), "") => PathRewrite::Regex(regex_rewrite(proto).at("regex_rewrite")?),
        ("", None, full) => PathRewrite::Full(Format::parse(full).at("path_rewrite")?),
        _ => {
            return refuse(
                "",
                "only one of prefix_rewrite, regex_rewrite and path_rewrite may be set",
            );
        }
    })
}

fn host(proto: Option<&HostRewriteSpecifier>) -> Result<HostRewrite> {
    Ok(match proto {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if !host.is_empty() => {
            HostRewrite::Literal(host.as_str().into())
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => HostRewrite::Auto,
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) if !name.is_empty() => {
            HostRewrite::Header(header_name(name).at("host_rewrite_header")?)
        }
        Some(HostRewriteSpecifier::HostRewrite(format)) if !format.is_empty() => {
            HostRewrite::Format(Format::parse(format).at("host_rewrite")?)
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(proto)) => {
            HostRewrite::PathRegex(regex_rewrite(proto).at("host_rewrite_path_regex")?)
        }
        Some(_) | None => HostRewrite::None,
    })
}
