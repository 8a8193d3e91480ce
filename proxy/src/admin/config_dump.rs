//! `/config_dump`: the configuration in force, cut down to what was asked for.

mod mask;

use http::StatusCode;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::AdminState;
use super::parameters::Parameters;
use super::reply::Reply;
use mask::Mask;

pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("resource", "The resource to dump"),
    (
        "mask",
        "The mask to apply. When both resource and mask are specified, the mask is applied to every \
         element in the desired repeated field so that only a subset of fields are returned. The mask \
         is parsed as a Protobuf::FieldMask",
    ),
    (
        "name_regex",
        "Dump only the currently loaded configurations whose names match the specified regex. Can be \
         used with both resource and mask query parameters.",
    ),
    (
        "include_eds",
        "Dump currently loaded configuration including EDS. See the response definition for more \
         information",
    ),
];

/// Each list of the dump with the message its elements are.
const LISTS: &[(&str, &str)] = &[
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    ("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster"),
    ("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster"),
    ("static_endpoint_configs", "EndpointsConfigDump.StaticEndpointConfig"),
    ("dynamic_endpoint_configs", "EndpointsConfigDump.DynamicEndpointConfig"),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    ("dynamic_route_configs", "RoutesConfigDump.DynamicRouteConfig"),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
];

/// Parts of a list's element that hold its resource, and so its name.
const RESOURCES: [&str; 5] = ["cluster", "endpoint_config", "listener", "route_config", "secret"];

pub(super) fn answer(state: &AdminState, parameters: &Parameters) -> Reply {
    let complaint = "INVALID_ARGUMENT: Error while parsing name_regex";
    let names = match parameters.regex("name_regex", complaint) {
        Ok(names) => names,
        Err(reply) => return reply,
    };
    let mut configs = state.configuration.configs(parameters.has("include_eds"));
    if let Some(names) = &names {
        configs.iter_mut().for_each(|config| keep_named(config, names));
    }
    let mask = parameters.get("mask").filter(|mask| !mask.is_empty()).map(Mask::parse);
    let selected = match parameters.get("resource").filter(|resource| !resource.is_empty()) {
        Some(resource) => elements(configs, resource, mask.as_ref()),
        None => masked(configs, mask.as_ref()),
    };
    match selected {
        // Envoy leaves an empty list out.
        Ok(configs) if configs.is_empty() => Reply::json(&json!({})),
        Ok(configs) => Reply::json(&json!({"configs": configs})),
        Err((status, reason)) => {
            Reply::text(reason).with_status(status).with_content_type("text/plain")
        }
    }
}

/// What Envoy answers instead of a dump.
type Refusal = (StatusCode, String);

/// The elements of the list called `resource`, each with its type.
fn elements(
    configs: Vec<Value>,
    resource: &str,
    mask: Option<&Mask>,
) -> Result<Vec<Value>, Refusal> {
    let Some((_, message)) = LISTS.iter().find(|(list, _)| *list == resource) else {
        let is_field = configs.iter().any(|config| config.get(resource).is_some());
        return Err(if is_field {
            let reason = format!(
                "{resource} is not a repeated field. Use ?mask={resource} to get only this field"
            );
            (StatusCode::BAD_REQUEST, reason)
        } else {
            (StatusCode::NOT_FOUND, format!("{resource} not found in config dump"))
        });
    };
    let typed = |element: Value| {
        let mut fields = Map::new();
        fields.insert(
            "@type".to_owned(),
            json!(format!("type.googleapis.com/envoy.admin.v3.{message}")),
        );
        if let Value::Object(element) = element {
            fields.extend(element);
        }
        let mut element = Value::Object(fields);
        if let Some(mask) = mask {
            mask.apply(&mut element);
        }
        element
    };
    let lists = configs.into_iter().filter_map(|mut config| match config.get_mut(resource) {
        Some(Value::Array(list)) => Some(std::mem::take(list)),
        _ => None,
    });
    Ok(lists.flatten().map(typed).collect())
}

/// The configs that have any of the mask's fields, cut down to these.
fn masked(mut configs: Vec<Value>, mask: Option<&Mask>) -> Result<Vec<Value>, Refusal> {
    let Some(mask) = mask else { return Ok(configs) };
    configs.retain(|config| mask.touches(config));
    if configs.is_empty() {
        let reason = format!("FieldMask {mask} could not be successfully applied to any configs.");
        return Err((StatusCode::BAD_REQUEST, reason));
    }
    configs.iter_mut().for_each(|config| mask.apply(config));
    Ok(configs)
}

/// Removes list elements whose resource has another name.
fn keep_named(config: &mut Value, names: &Regex) {
    let Value::Object(fields) = config else { return };
    for list in fields.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|element| name(element).is_none_or(|name| names.is_match(name)));
    }
    fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
}

fn name(element: &Value) -> Option<&str> {
    let own = element.get("name").and_then(Value::as_str);
    own.or_else(|| {
        let resource = RESOURCES.iter().find_map(|part| element.get(part))?;
        resource.get("name").or_else(|| resource.get("cluster_name"))?.as_str()
    })
}
