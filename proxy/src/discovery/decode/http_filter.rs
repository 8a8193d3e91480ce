//! The HTTP filters of a connection manager, and what route tables say to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_types::Any;
use xds::envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig};
use xds::envoy::config::route::v3::FilterConfig;
use xds::envoy::extensions::filters::http::cors::v3::Cors;
use xds::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use xds::envoy::extensions::filters::http::on_demand::v3::{
    OnDemand, PerRouteConfig as OnDemandPerRoute,
};
use xds::envoy::extensions::filters::http::peak_ewma::v3alpha::PeakEwmaConfig;
use xds::envoy::extensions::filters::http::router::v3::Router;
use xds::envoy::extensions::filters::http::wasm::v3::Wasm;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use xds::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig};

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{self, message_name, unpack, unsupported};
use super::source::config_source;
use super::value::{enumeration, non_empty};
use super::{
    compressor, cors, decompressor, ext_authz, fault, forward_proxy, global_rate_limit, grpc_stats,
    header_mutation, istio, jwt_authn, local_rate_limit, rbac, small_filters, stateful_session,
};
use crate::config::Name;
use crate::config::http_filter::{self, DiscoveredFilter, FilterKind, FilterOverride, FilterRule};

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
    let any = match required("typed_config", config_type)? {
        ConfigType::TypedConfig(any) => extension::carried(any).at("typed_config")?,
        ConfigType::ConfigDiscovery(source) => {
            let kind = discovered(source, stat_prefix).at("config_discovery")?;
            return Ok(passed(name, *disabled, kind));
        }
    };
    let any = &*any;
    if let Some(router) = unpack::<Router>(any).at("typed_config")? {
        if *disabled {
            return refuse("disabled", "the last filter of the chain cannot be disabled");
        }
        return Ok(Filter::Router(router));
    }
    if changes_nothing(any).at("typed_config")? {
        return Ok(Filter::Skipped);
    }
    if let Some(kind) = kind(any, stat_prefix).at("typed_config")? {
        return Ok(passed(name, *disabled, kind));
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

fn passed(name: &str, disabled: bool, kind: FilterKind) -> Filter {
    Filter::Passed(http_filter::HttpFilter { name: name.into(), disabled, kind })
}

/// Whether requests pass the filter as if it were not there.
fn changes_nothing(any: &Any) -> Result<bool> {
    if let Some(proto) = unpack::<Wasm>(any)? {
        return may_be_left_out(&proto);
    }
    // Every table is whole: there is nothing to ask for.
    if let Some(OnDemand {}) = unpack(any)? {
        return Ok(true);
    }
    // The router measures whether the filter is there or not.
    let is_peak_ewma = unpack(any)?.is_some_and(|PeakEwmaConfig {}| true);
    Ok(is_peak_ewma || istio::is_stats(any)?)
}

/// Whether requests pass without the plugin, which cannot be run.
fn may_be_left_out(proto: &Wasm) -> Result<bool> {
    let Wasm { config } = proto;
    let PluginConfig {
        name,
        root_id: _,
        vm: _,
        configuration: _,
        fail_open,
        failure_policy,
        allow_on_headers_stop_iteration: _,
    } = required("config", config)?;
    let policy = enumeration::<FailurePolicy>("config.failure_policy", *failure_policy)?;
    let may_be_left_out = *fail_open || policy == FailurePolicy::FailOpen;
    if may_be_left_out {
        tracing::warn!(
            plugin = name,
            "Wasm plugins are not supported; this one is skipped, as its failure policy allows"
        );
    } else {
        tracing::error!(
            plugin = name,
            "Wasm plugins are not supported; all requests that should pass this one are answered with 503, as its failure policy demands"
        );
    }
    Ok(may_be_left_out)
}

/// A filter whose configuration is discovered.
fn discovered(proto: &ExtensionConfigSource, stat_prefix: &Name) -> Result<FilterKind> {
    let ExtensionConfigSource {
        config_source: source,
        default_config,
        apply_default_config_without_warming: _,
        type_urls,
    } = proto;
    if type_urls.is_empty() {
        return refuse("type_urls", "required: say what the filter may turn out to be");
    }
    let types = type_urls.iter().map(|url| url.rsplit('/').next().unwrap_or(url).into());
    let default = optional("default_config", default_config, |any| {
        match kind(&*extension::carried(any)?, stat_prefix)? {
            Some(kind) => Ok(kind),
            None => unsupported(any),
        }
    })?;
    Ok(FilterKind::Discovered(Box::new(DiscoveredFilter {
        source: config_source(required("config_source", source)?).at("config_source")?,
        types: types.collect(),
        default,
    })))
}

/// What a discovered filter does; none if requests pass it as if it were not there.
pub(super) fn found(
    proto: &TypedExtensionConfig,
    stat_prefix: &Name,
) -> Result<Option<FilterKind>> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = extension::carried(required("typed_config", typed_config)?).at("typed_config")?;
    if changes_nothing(&any).at("typed_config")? {
        return Ok(None);
    }
    match kind(&any, stat_prefix).at("typed_config")? {
        Some(kind) => Ok(Some(kind)),
        None => unsupported(&any).at("typed_config"),
    }
}

/// Refuses a discovered filter that is of none of `types`.
pub(super) fn of_types(proto: &TypedExtensionConfig, types: &[Box<str>]) -> Result<()> {
    let any = required("typed_config", &proto.typed_config)?;
    let any = extension::carried(any).at("typed_config")?;
    let found = message_name(&any);
    if types.iter().any(|known| **known == *found) {
        return Ok(());
    }
    refuse("typed_config", format!("{found} is none of the type_urls of who asks for it"))
}

/// The same, of filters that have little to say.
fn small_kind(any: &Any, stat_prefix: &Name) -> Result<Option<FilterKind>> {
    if let Some(proto) = unpack(any)? {
        return small_filters::buffer(&proto).map(|it| Some(FilterKind::Buffer(it)));
    }
    if let Some(proto) = unpack(any)? {
        return small_filters::csrf(&proto).map(|it| Some(FilterKind::Csrf(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        let filter = compressor::filter(&proto, stat_prefix);
        return filter.map(|it| Some(FilterKind::Compressor(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        let filter = decompressor::filter(&proto, stat_prefix);
        return filter.map(|it| Some(FilterKind::Decompressor(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        return grpc_stats::filter(&proto).map(|it| Some(FilterKind::GrpcStats(Box::new(it))));
    }
    if let Some(GrpcWeb {}) = unpack(any)? {
        return Ok(Some(FilterKind::GrpcWeb));
    }
    if let Some(proto) = unpack(any)? {
        return small_filters::health_check(&proto).map(|it| Some(FilterKind::HealthCheck(it)));
    }
    if let Some(proto) = unpack(any)? {
        return small_filters::filter_state(&proto).map(|it| Some(FilterKind::SetFilterState(it)));
    }
    Ok(None)
}

/// What the filter does; none if this version does not have it.
fn kind(any: &Any, stat_prefix: &Name) -> Result<Option<FilterKind>> {
    if let Some(kind) = small_kind(any, stat_prefix)? {
        return Ok(Some(kind));
    }
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
    if let Some(proto) = unpack(any)? {
        return istio::alpn(&proto).map(|it| Some(FilterKind::IstioAlpn(Arc::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        return Ok(Some(FilterKind::IstioPeerMetadata(istio::peer_metadata(&proto))));
    }
    if let Some(proto) = unpack(any)? {
        let kind = (!may_be_left_out(&proto)?).then_some(FilterKind::Wasm);
        return Ok(kind);
    }
    if let Some(proto) = unpack(any)? {
        let filter = global_rate_limit::filter(&proto)?;
        return Ok(Some(FilterKind::RateLimit(Arc::new(filter))));
    }
    if let Some(proto) = unpack(any)? {
        let filter = ext_authz::filter(&proto, stat_prefix)?;
        return Ok(Some(FilterKind::ExtAuthz(Arc::new(filter))));
    }
    if let Some(proto) = unpack(any)? {
        return local_rate_limit::filter(&proto).map(|it| Some(FilterKind::LocalRateLimit(it)));
    }
    Ok(None)
}

/// What a table, virtual host, route or weighted cluster says to filters. What is optional may be unknown.
pub(super) fn per_filter_config(
    configs: &BTreeMap<String, Any>,
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
    let any = &*extension::carried(any)?;
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
    let config = &*extension::carried(config).at("config")?;
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
        return small_filters::buffer_route(&proto).map(|it| Some(FilterRule::Buffer(it)));
    }
    if let Some(proto) = unpack(any)? {
        return small_filters::csrf(&proto).map(|it| Some(FilterRule::Csrf(Box::new(it))));
    }
    if let Some(proto) = unpack(any)? {
        return compressor::route(&proto).map(|it| Some(FilterRule::Compressor(it)));
    }
    if let Some(proto) = unpack(any)? {
        return small_filters::filter_state(&proto).map(|it| Some(FilterRule::SetFilterState(it)));
    }
    if let Some(OnDemandPerRoute {}) = unpack(any)? {
        return Ok(Some(FilterRule::Enabled));
    }
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
    if let Some(proto) = unpack(any)? {
        let rule = global_rate_limit::route(&proto)?;
        return Ok(Some(FilterRule::RateLimit(Box::new(rule))));
    }
    if let Some(proto) = unpack(any)? {
        return ext_authz::route(&proto).map(|it| Some(FilterRule::ExtAuthz(it)));
    }
    if let Some(proto) = unpack(any)? {
        return local_rate_limit::route(&proto).map(|it| Some(FilterRule::LocalRateLimit(it)));
    }
    Ok(None)
}
