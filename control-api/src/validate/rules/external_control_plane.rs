//! Webhooks of an istiod outside of the cluster.

use std::net::IpAddr;

use crate::model::Mesh;
use crate::model::kind::{Kind, Spec};
use crate::validate::code;
use crate::validate::finding::Findings;

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    let kinds = [Kind::ValidatingWebhookConfiguration, Kind::MutatingWebhookConfiguration];
    for object in kinds.into_iter().flat_map(|kind| mesh.of_kind(kind)) {
        let (Spec::ValidatingWebhookConfiguration(configuration)
        | Spec::MutatingWebhookConfiguration(configuration)) = &object.spec
        else {
            continue;
        };
        let name = &object.metadata.name;
        let istios = ["istiod-default-validator", "istio-validator", "istio-sidecar-injector"];
        if !istios.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        for (index, webhook) in configuration.webhooks.iter().enumerate() {
            let path = format!("webhooks[{index}].clientConfig.url");
            let client = &webhook.client_config;
            let Some(url) = &client.url else {
                if client.service.is_none() {
                    let message = format!("Webhook {} has neither url nor service", webhook.name);
                    findings.report(code::INVALID_EXTERNAL_CONTROL_PLANE, object, path, message);
                }
                continue;
            };
            match host_of(url) {
                None => {
                    let message = format!("Webhook {} has an invalid url: {url}", webhook.name);
                    findings.report(code::INVALID_EXTERNAL_CONTROL_PLANE, object, path, message);
                }
                Some(host) if host.parse::<IpAddr>().is_ok() => {
                    let message = format!("Webhook {} is at an IP address: {url}", webhook.name);
                    let code = code::EXTERNAL_CONTROL_PLANE_ADDRESS;
                    findings.report(code, object, path, message).fix("use a host name");
                }
                Some(_) => {}
            }
        }
    }
}

fn host_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    Some(host).filter(|host| !host.is_empty() && !host.contains(char::is_whitespace))
}
