//! The HTTP filters of a connection manager, and what route tables say to them.

use std::collections::HashMap;
use std::sync::Arc;

use prost_types::Any;
use xds::envoy::config::route::v3::FilterConfig;
use xds::envoy::extensions::filters::http::cors::v3::Cors;
use xds::envoy::extensions::filters::http::peak_ewma::v3alpha::PeakEwmaConfig;
use xds::envoy::extensions::filters::http::router::v3::Router;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use super::errors::{At, Result, each, refuse, required};
use super::extension::{message_name, unpack, unsupported};
use super::value::non_empty;
use super::{cors, fault, forward_proxy, header_mutation, jwt_authn, rbac, stateful_session};
use crate::config::Name;
use crate::config::http_filter::{self, FilterKind, FilterOverride, FilterRule};

/// A filter that this version has.
enum Filter {
    Router(Router),
    Passed(http_filter::HttpFilter),
    Skipped,
}

/// The filters of the connection manager with this `stat_prefix`, of which the router must be the last.
pub(super) fn filters(
    protos: &[HttpFilter],
    stat_prefix: &Name,
) -> Result<(Router, Vec<http_filter::HttpFilter>)> {
    let mut filters = each("http_filters", protos, |proto| filter(proto, stat_prefix))?;
    let Some(Filter::Router(router)) = filters.pop() else {
        return refuse("http_filters", "the last filter must be envoy.filters.http.router");
    };
    let mut passed = Vec::with_capacity(filters.len());
    for (index, filter) in filters.into_iter().enumerate() {
        match filter {
            Filter::Router(_) => {
                let path = format!("http_filters[{index}]");
                return refuse(&path, "a terminal filter must be the last filter of the chain");
            }
            Filter::Passed(filter) => passed.push(filter),
            Filter::Skipped => {}
        }
    }
    Ok((router, passed))
}

fn filter(proto: &HttpFilter, stat_prefix: &Name) -> Result<Filter> {
    let HttpFilter { name, is_optional, disabled, config_type } = proto;
    non_empty("name", name)?;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    if let Some(router) = unpack::<Router>(any).at("typed_config")? {
        if *disabled {
            return refuse("disabled", "the last filter of the chain cannot be disabled");
        }
        return Ok(Filter::Router(router));
    }
    if let Some(PeakEwmaConfig {}) = unpack(any).at("typed_config")? {
        // The router measures whether it is there or not.
        return Ok(Filter::Skipped);
    }
    if let Some(kind) = kind(any, stat_prefix).at("typed_config")? {
        let (name, disabled) = (name.as_str().into(), *disabled);
        return Ok(Filter::Passed(http_filter::HttpFilter { name, disabled, kind }));
    }
    if *is_optional || *disabled {
        let filter = message_name(any);
        tracing::warn!(
            name,
            filter,
            "this HTTP filter is not supported; it is optional or disabled, so it is skipped, and routes cannot enable it"
        );
        return Ok(Filter::Skipped);
    }
    unsupported(any).at("typed_config")
}

/// What the filter does; none if this version does not have it.
fn kind(any: &Any, stat_prefix: &Name) -> Result<Option<FilterKind>> {
    if let Some(proto) = unpack(any)? {
        return forward_proxy::filter(&proto).map(|it| Some(FilterKind::ForwardProxy(it)));
    }
    if let Some(proto) = unpack(any)? {
        let filter = stateful_session::filter(&proto, stat_prefix);
        return filter.map(|it| Some(FilterKind::StatefulSession(it)));
    }
    if let Some(Cors {}) = unpack(any)? {
        return Ok(Some(FilterKind::Cors));
    }
    if let Some(proto) = unpack(any)? {
        return header_mutation::filter(&proto).map(|it| Some(FilterKind::HeaderMutation(it)));
    }
    if let Some(proto) = unpack(any)? {
        return fault::fault(&proto).map(|it| Some(FilterKind::Fault(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        let filter = rbac::filter(&proto, stat_prefix);
        return filter.map(|it| Some(FilterKind::Rbac(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        let filter = jwt_authn::filter(&proto, stat_prefix)?;
        return Ok(Some(FilterKind::JwtAuthn(Arc::new(filter))));
    }
    Ok(None)
}

/// What a table, virtual host, route or weighted cluster says to filters. What is optional may be unknown.
pub(super) fn per_filter_config(
    configs: &HashMap<String, Any>,
) -> Result<Vec<Arc<FilterOverride>>> {
    let mut configs: Vec<_> = configs.iter().collect();
    configs.sort_by_key(|(name, _)| *name);
    let mut overrides = Vec::with_capacity(configs.len());
    for (name, any) in configs {
        let rule = filter_config(name, any).at(&format!("typed_per_filter_config[{name:?}]"))?;
        let filter = || name.as_str().into();
        overrides.extend(rule.map(|rule| Arc::new(FilterOverride { filter: filter(), rule })));
    }
    Ok(overrides)
}

fn filter_config(name: &str, any: &Any) -> Result<Option<FilterRule>> {
    if let Some(rule) = rule(any)? {
        return Ok(Some(rule));
    }
    let Some(filter) = unpack::<FilterConfig>(any)? else { return unsupported(any) };
    let FilterConfig { config, is_optional, disabled } = filter;
    let Some(config) = config.as_ref().filter(|_| !disabled) else {
        // Disabling a filter that the chain does not have changes nothing, as in Envoy.
        return match disabled {
            true => Ok(Some(FilterRule::Disabled)),
            false => refuse("", "neither a configuration nor disabled"),
        };
    };
    if config.type_url.is_empty() {
        return Ok(Some(FilterRule::Enabled));
    }
    match rule(config).at("config")? {
        Some(rule) => Ok(Some(rule)),
        None if is_optional => {
            tracing::warn!(filter = name, r#type = %message_name(config), "optional filter skipped");
            Ok(None)
        }
        None => unsupported(config).at("config"),
    }
}

/// What is said to a filter; none if this version does not have it.
fn rule(any: &Any) -> Result<Option<FilterRule>> {
    if let Some(proto) = unpack(any)? {
        return forward_proxy::route(&proto).map(|it| Some(FilterRule::ForwardProxy(it)));
    }
    if let Some(proto) = unpack(any)? {
        return stateful_session::route(&proto).map(|it| Some(FilterRule::StatefulSession(it)));
    }
    if let Some(proto) = unpack(any)? {
        return cors::policy(&proto).map(|it| Some(FilterRule::Cors(it)));
    }
    if let Some(proto) = unpack(any)? {
        return header_mutation::route(&proto).map(|it| Some(FilterRule::HeaderMutation(it)));
    }
    if let Some(proto) = unpack(any)? {
        return fault::fault(&proto).map(|it| Some(FilterRule::Fault(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        return rbac::route(&proto).map(|it| Some(FilterRule::Rbac(it)));
    }
    if let Some(proto) = unpack(any)? {
        return jwt_authn::route(&proto).map(|it| Some(FilterRule::JwtAuthn(it)));
    }
    Ok(None)
}
