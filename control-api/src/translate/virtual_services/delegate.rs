//! Delegates: routes of another virtual service that take the place of one route, as far as their matches agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::visibility;
use crate::model::istio::virtual_service::{
    HttpMatchRequest, HttpRoute, StringMatch, VirtualService,
};
use crate::model::kind::{Kind, Spec};
use crate::model::object::Object;
use crate::model::{Found, Mesh};

/// The virtual service with its delegates' routes in place. A delegate that does not exist, may not be seen, or has
/// hosts of its own contributes nothing.
pub(super) fn merged(mesh: &Mesh, found: Found<'_, VirtualService>) -> VirtualService {
    let mut spec = found.spec.clone();
    if spec.http.iter().all(|route| route.delegate.is_none()) {
        return spec;
    }
    spec.http =
        spec.http
            .into_iter()
            .flat_map(|route| {
                if route.delegate.is_none() { vec![route] } else { routes(mesh, found, &route) }
            })
            .collect();
    spec
}

fn routes(mesh: &Mesh, found: Found<'_, VirtualService>, root: &HttpRoute) -> Vec<HttpRoute> {
    let Some(delegate) = &root.delegate else { return Vec::new() };
    let namespace = Some(delegate.namespace.as_str()).filter(|it| !it.is_empty());
    let namespace = namespace.unwrap_or(found.namespace());
    let object = mesh.get(Kind::VirtualService, namespace, &delegate.name);
    let Some(Spec::VirtualService(leaf)) = object.map(|it| &it.spec) else { return Vec::new() };
    if !leaf.hosts.is_empty() || !visibility(mesh, leaf, namespace).sees(found.namespace()) {
        return Vec::new();
    }
    // Names in the delegate are of its own namespace.
    let leaf = super::full_names((**leaf).clone(), namespace);
    let leaves = leaf.http.into_iter().filter(|it| it.delegate.is_none());
    leaves.filter_map(|leaf| merge(root, leaf)).collect()
}

/// The delegates, or routes of them, that contribute nothing: the object, the field, and why.
pub(in crate::translate) fn misfits(mesh: &Mesh) -> Vec<(&Arc<Object>, String, String)> {
    let mut all = Vec::new();
    for found in mesh.all::<VirtualService>() {
        for (index, root) in found.spec.http.iter().enumerate() {
            if let Some(why) = misfit(mesh, found, root) {
                all.push((found.object, format!("spec.http[{index}].delegate"), why));
            }
        }
    }
    all
}

fn misfit(mesh: &Mesh, found: Found<'_, VirtualService>, root: &HttpRoute) -> Option<String> {
    let delegate = root.delegate.as_ref()?;
    let namespace = Some(delegate.namespace.as_str()).filter(|it| !it.is_empty());
    let namespace = namespace.unwrap_or(found.namespace());
    let name = format!("VirtualService {namespace}/{}", delegate.name);
    let object = mesh.get(Kind::VirtualService, namespace, &delegate.name);
    let Some(Spec::VirtualService(leaf)) = object.map(|it| &it.spec) else {
        return Some(format!("there is no {name}"));
    };
    if !leaf.hosts.is_empty() {
        return Some(format!("{name} has hosts of its own, so it is no delegate"));
    }
    if !visibility(mesh, leaf, namespace).sees(found.namespace()) {
        return Some(format!("{name} is not exported to namespace {}", found.namespace()));
    }
    let of_leaf = super::full_names((**leaf).clone(), namespace).http;
    let unfit =
        |(_, it): &(usize, HttpRoute)| it.delegate.is_some() || merge(root, it.clone()).is_none();
    let unfit: Vec<String> = of_leaf
        .into_iter()
        .enumerate()
        .filter(unfit)
        .map(|(index, _)| format!("spec.http[{index}]"))
        .collect();
    let why = "which matches what this route does not, or delegates further";
    (!unfit.is_empty()).then(|| format!("without {} of {name}, {why}", unfit.join(", ")))
}

/// None if the matches contradict each other.
fn merge(root: &HttpRoute, leaf: HttpRoute) -> Option<HttpRoute> {
    let r#match = matches(&root.r#match, &leaf.r#match)?;
    let name = joined(&root.name, &leaf.name);
    let both = root.clone();
    Some(HttpRoute {
        name,
        r#match,
        rewrite: leaf.rewrite.or(both.rewrite),
        direct_response: leaf.direct_response.or(both.direct_response),
        timeout: leaf.timeout.or(both.timeout),
        retries: leaf.retries.or(both.retries),
        fault: leaf.fault.or(both.fault),
        mirror: leaf.mirror.or(both.mirror),
        mirrors: if leaf.mirrors.is_empty() { both.mirrors } else { leaf.mirrors },
        mirror_percent: leaf.mirror_percent.or(both.mirror_percent),
        mirror_percentage: leaf.mirror_percentage.or(both.mirror_percentage),
        cors_policy: leaf.cors_policy.or(both.cors_policy),
        headers: leaf.headers.or(both.headers),
        route: leaf.route,
        redirect: leaf.redirect,
        delegate: None,
    })
}

fn joined(root: &str, leaf: &str) -> String {
    match (root, leaf) {
        (root, "") => root.to_owned(),
        ("", leaf) => leaf.to_owned(),
        (root, leaf) => format!("{root}-{leaf}"),
    }
}

/// Every match of the leaf must lie within one of the root.
fn matches(root: &[HttpMatchRequest], leaf: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() || leaf.is_empty() {
        return Some(if root.is_empty() { leaf.to_vec() } else { root.to_vec() });
    }
    let mut merged = Vec::new();
    for leaf in leaf {
        let before = merged.len();
        let fitting = root.iter().filter(|root| !conflicts(root, leaf));
        merged.extend(fitting.map(|root| merge_match(root, leaf)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    let both = root.clone();
    let own = leaf.clone();
    let or = |leaf: String, root: String| if leaf.is_empty() { root } else { leaf };
    HttpMatchRequest {
        name: joined(&root.name, &leaf.name),
        uri: own.uri.or(both.uri),
        scheme: own.scheme.or(both.scheme),
        method: own.method.or(both.method),
        authority: own.authority.or(both.authority),
        headers: over(both.headers, own.headers),
        without_headers: over(both.without_headers, own.without_headers),
        query_params: over(both.query_params, own.query_params),
        port: if own.port == 0 { both.port } else { own.port },
        source_labels: over(both.source_labels, own.source_labels),
        source_namespace: or(own.source_namespace, both.source_namespace),
        gateways: if own.gateways.is_empty() { both.gateways } else { own.gateways },
        ignore_uri_case: own.ignore_uri_case,
        stat_prefix: or(own.stat_prefix, both.stat_prefix),
    }
}

fn over<T>(mut root: BTreeMap<String, T>, leaf: BTreeMap<String, T>) -> BTreeMap<String, T> {
    root.extend(leaf);
    root
}

fn conflicts(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    texts.iter().any(|(root, leaf)| disagree(root.as_ref(), leaf.as_ref()))
        || some_disagree(&root.headers, &leaf.headers)
        || some_disagree(&root.without_headers, &leaf.without_headers)
        || some_disagree(&root.query_params, &leaf.query_params)
        || root.ignore_uri_case != leaf.ignore_uri_case
        || (root.port > 0 && leaf.port > 0 && root.port != leaf.port)
        || (!root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace)
        || leaf
            .source_labels
            .iter()
            .any(|(key, value)| root.source_labels.get(key).is_some_and(|it| it != value))
        || (!root.gateways.is_empty() && leaf.gateways.iter().any(|it| !root.gateways.contains(it)))
}

fn some_disagree(
    root: &BTreeMap<String, StringMatch>,
    leaf: &BTreeMap<String, StringMatch>,
) -> bool {
    leaf.iter().any(|(name, leaf)| disagree(root.get(name), Some(leaf)))
}

/// Whether what the leaf asks for is not surely within what the root asks for.
fn disagree(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    match (root, leaf) {
        (StringMatch::Exact(root), StringMatch::Exact(leaf)) => root != leaf,
        (StringMatch::Prefix(root), StringMatch::Prefix(leaf) | StringMatch::Exact(leaf)) => {
            !leaf.starts_with(root.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Option<StringMatch> {
        Some(StringMatch::Prefix(text.into()))
    }

    #[test]
    fn a_delegates_match_lies_within_the_roots() {
        let root = HttpMatchRequest { uri: prefix("/shop"), port: 80, ..Default::default() };
        let inner = HttpMatchRequest { uri: prefix("/shop/cart"), ..Default::default() };
        let outer = HttpMatchRequest { uri: prefix("/other"), ..Default::default() };
        let merged = matches(std::slice::from_ref(&root), std::slice::from_ref(&inner)).unwrap();
        assert_eq!((merged[0].uri.clone(), merged[0].port), (prefix("/shop/cart"), 80));
        assert!(matches(std::slice::from_ref(&root), std::slice::from_ref(&outer)).is_none());
        assert_eq!(matches(std::slice::from_ref(&root), &[]).unwrap(), [root]);
    }

    #[test]
    fn names_are_joined() {
        assert_eq!(joined("a", "b"), "a-b");
        assert_eq!(joined("", "b") + &joined("a", ""), "ba");
    }
}
