//! The `grpc_stats` filter.

use std::collections::BTreeSet;

use xds::envoy::config::core::v3::GrpcMethodList;
use xds::envoy::config::core::v3::grpc_method_list::Service;
use xds::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig;
use xds::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;

use super::errors::{At, Result, each, refuse};
use super::value::non_empty;
use crate::config::HashMap;
use crate::config::grpc_stats::{GrpcMethods, GrpcStats};

/// The filter.
pub(super) fn filter(proto: &FilterConfig) -> Result<GrpcStats> {
    let FilterConfig {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = proto;
    Ok(GrpcStats {
        emits_state: *emit_filter_state,
        methods: match per_method_stat_specifier {
            Some(PerMethodStatSpecifier::StatsForAllMethods(true)) => GrpcMethods::All,
            Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => {
                methods(list).at("individual_method_stats_allowlist")?
            }
            Some(PerMethodStatSpecifier::StatsForAllMethods(false)) | None => {
                GrpcMethods::These(HashMap::default())
            }
        },
        upstream: *enable_upstream_stats,
        replaces_dots: *replace_dots_in_grpc_service_name,
    })
}

fn methods(proto: &GrpcMethodList) -> Result<GrpcMethods> {
    let GrpcMethodList { services } = proto;
    let mut all: HashMap<Box<str>, BTreeSet<Box<str>>> = HashMap::default();
    each("services", services, |Service { name, method_names }| {
        let methods = all.entry(non_empty("name", name)?.into()).or_default();
        if method_names.is_empty() {
            return refuse("method_names", "at least one is required");
        }
        methods.extend(method_names.iter().map(|method| method.as_str().into()));
        Ok(())
    })?;
    Ok(GrpcMethods::These(all))
}
