//! The `jwt_authn` filter, and what routes say to it.

mod provider;

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;
use xds::envoy::config::route::v3::RouteMatch;
use xds::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use xds::envoy::extensions::filters::http::jwt_authn::v3::per_route_config::RequirementSpecifier;
use xds::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use xds::envoy::extensions::filters::http::jwt_authn::v3::{
    ExtractOnlyWithoutValidation, FilterStateRule, JwtAuthentication, JwtRequirement,
    JwtRequirementAndList, JwtRequirementOrList, PerRouteConfig, ProviderWithAudiences,
    RequirementRule,
};

use super::errors::{At, Result, each, optional, refuse, required};
use super::route_match::route_match;
use super::value::{header_name, non_empty};
use crate::config::Name;
use crate::config::jwt::{
    Audiences, JwtAuthn, Lenience, Location, Named, Provider, Requirement, RouteRequirement,
    StatsScope,
};
use crate::config::route;

type Providers = [Arc<Provider>];

/// The filter of a connection manager with this `manager` as its stat prefix.
pub(super) fn filter(proto: &JwtAuthentication, manager: &Name) -> Result<JwtAuthn> {
    let JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = proto;
    let mut providers: Vec<_> = providers.iter().collect();
    providers.sort_by_key(|(name, _)| *name);
    let decode = |(name, proto): (&String, _)| {
        provider::provider(name, proto).map(Arc::new).at(&format!("providers[{name:?}]"))
    };
    let providers = providers.into_iter().map(decode).collect::<Result<Vec<_>>>()?;
    let named = requirements("requirement_map", requirement_map, &providers)?;
    let prefix = stat_prefix.as_str().into();
    Ok(JwtAuthn {
        stats: StatsScope { manager: Arc::clone(manager), prefix },
        locations: Location::merged(providers.iter().flat_map(|it| &it.locations)),
        rules: each("rules", rules, |proto| rule(proto, &providers, &named))?,
        by_filter_state: optional("filter_state_rules", filter_state_rules, |proto| {
            let FilterStateRule { name, requires } = proto;
            let name = non_empty("name", name)?.into();
            Ok((name, requirements("requires", requires, &providers)?))
        })?,
        named,
        bypass_cors_preflight: *bypass_cors_preflight,
        strip_failure_response: *strip_failure_response,
        providers,
    })
}

/// What a route says to the filter.
pub(super) fn route(proto: &PerRouteConfig) -> Result<RouteRequirement> {
    let PerRouteConfig { requirement_specifier } = proto;
    match required("disabled or requirement_name", requirement_specifier)? {
        RequirementSpecifier::Disabled(true) => Ok(RouteRequirement::Nothing),
        RequirementSpecifier::Disabled(false) => refuse("disabled", "must be true"),
        RequirementSpecifier::RequirementName(name) => {
            Ok(RouteRequirement::Named(non_empty("requirement_name", name)?.into()))
        }
    }
}

fn requirements(
    field: &str,
    protos: &HashMap<String, JwtRequirement>,
    providers: &Providers,
) -> Result<Named> {
    let decode = |(name, proto): (&String, _)| {
        let requirement = requirement(proto, providers).at(&format!("{field}[{name:?}]"))?;
        Ok((name.as_str().into(), requirement))
    };
    protos.iter().map(decode).collect()
}

fn rule(
    proto: &RequirementRule,
    providers: &Providers,
    named: &Named,
) -> Result<(route::RouteMatch, Requirement)> {
    let RequirementRule { r#match, requirement_type } = proto;
    let conditions = conditions(required("match", r#match)?).at("match")?;
    let requirement = match requirement_type {
        None => Requirement::Nothing,
        Some(RequirementType::Requires(proto)) => requirement(proto, providers).at("requires")?,
        Some(RequirementType::RequirementName(name)) => match named.get(name.as_str()) {
            Some(requirement) => requirement.clone(),
            None => {
                return refuse("requirement_name", format!("`{name}` is not in requirement_map"));
            }
        },
    };
    Ok((conditions, requirement))
}

/// Which requests a rule is for. Envoy takes no notice of what it does not look at here, so that a rule would be for
/// more requests than it says.
fn conditions(proto: &RouteMatch) -> Result<route::RouteMatch> {
    let conditions = route_match(proto)?;
    let unseen = [
        ("runtime_fraction", conditions.runtime_fraction.is_some()),
        ("grpc", conditions.grpc),
        ("tls_context", conditions.tls.is_some()),
        ("dynamic_metadata", !conditions.dynamic_metadata.is_empty()),
    ];
    match unseen.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => refuse(field, "has no effect on who needs a token, in Envoy"),
        None => Ok(conditions),
    }
}

fn requirement(proto: &JwtRequirement, providers: &Providers) -> Result<Requirement> {
    let JwtRequirement { requires_type } = proto;
    let Some(kind) = requires_type else { return Ok(Requirement::Nothing) };
    match kind {
        RequiresType::ProviderName(name) => {
            Ok(Requirement::Provider(find("provider_name", name, providers)?, None))
        }
        RequiresType::ProviderAndAudiences(proto) => {
            let ProviderWithAudiences { provider_name, audiences } = proto;
            let path = "provider_and_audiences.provider_name";
            let provider = find(path, provider_name, providers)?;
            let own = (!audiences.is_empty()).then(|| Audiences::new(audiences));
            Ok(Requirement::Provider(provider, own))
        }
        RequiresType::RequiresAny(JwtRequirementOrList { requirements }) => {
            any(&list("requires_any.requirements", requirements, providers)?)
        }
        RequiresType::RequiresAll(JwtRequirementAndList { requirements }) => {
            list("requires_all.requirements", requirements, providers).map(Requirement::All)
        }
        RequiresType::AllowMissingOrFailed(()) => Ok(Requirement::AnyProvider(Lenience::Failed)),
        RequiresType::AllowMissing(()) => Ok(Requirement::AnyProvider(Lenience::Missing)),
        RequiresType::ExtractOnlyWithoutValidation(proto) => {
            told(proto).map(Requirement::Told).at("extract_only_without_validation")
        }
    }
}

/// The header that tells of bad tokens, if one is to.
fn told(proto: &ExtractOnlyWithoutValidation) -> Result<Option<HeaderName>> {
    let ExtractOnlyWithoutValidation { verification_status_header: name } = proto;
    match name.as_str() {
        "" => Ok(Some(HeaderName::from_static("x-jwt-signature-verified"))),
        "-" => Ok(None),
        name => header_name(name).map(Some).at("verification_status_header"),
    }
}

fn list(field: &str, protos: &[JwtRequirement], providers: &Providers) -> Result<Vec<Requirement>> {
    if protos.len() < 2 {
        return refuse(field, "at least two");
    }
    each(field, protos, |proto| requirement(proto, providers))
}

/// Beside others, `allow_missing` and `allow_missing_or_failed` say what their failures come to.
fn any(all: &[Requirement]) -> Result<Requirement> {
    let lenience = |it: &Requirement| match it {
        Requirement::AnyProvider(lenience) => Some(*lenience),
        _ => None,
    };
    let most = all.iter().filter_map(lenience).max().unwrap_or(Lenience::None);
    let others: Vec<_> = all.iter().filter(|it| lenience(it).is_none()).cloned().collect();
    Ok(match others.as_slice() {
        [] => Requirement::AnyProvider(most),
        _ => Requirement::Any(others, most),
    })
}

fn find(field: &str, name: &str, providers: &Providers) -> Result<Arc<Provider>> {
    match providers.iter().find(|provider| *provider.name == *name) {
        Some(provider) => Ok(Arc::clone(provider)),
        None => refuse(field, format!("there is no provider `{name}`")),
    }
}
