//! Fields that proxies are not told of, wherever they are set.

use crate::model::Mesh;
use crate::model::istio::destination_rule::{
    DestinationRule, LoadBalancerSettings, OutlierDetection, TrafficPolicy,
};
use crate::model::istio::gateway::{Gateway, TlsMode};
use crate::model::istio::virtual_service::VirtualService;
use crate::validate::code;
use crate::validate::finding::Findings;

/// Adds a finding for each of them.
pub(super) fn report(mesh: &Mesh, findings: &mut Findings) {
    for rule in mesh.all::<DestinationRule>() {
        let own = rule.spec.traffic_policy.iter().map(|it| (it, "spec.trafficPolicy".to_owned()));
        let subsets = rule.spec.subsets.iter().enumerate().filter_map(|(index, subset)| {
            let policy = subset.traffic_policy.as_ref()?;
            Some((policy, format!("spec.subsets[{index}].trafficPolicy")))
        });
        for (policy, path) in own.chain(subsets) {
            for (field, why) in of_policy(policy) {
                findings.report(code::NOT_APPLIED, rule.object, format!("{path}.{field}"), why);
            }
        }
    }
    for gateway in mesh.all::<Gateway>() {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            for (field, is_set) in [
                ("tlsCertificates", !tls.tls_certificates.is_empty()),
                ("caCrl", !tls.ca_crl.is_empty()),
                (
                    "subjectAltNames",
                    tls.mode == TlsMode::Simple && !tls.subject_alt_names.is_empty(),
                ),
            ] {
                if is_set {
                    let path = format!("spec.servers[{index}].tls.{field}");
                    let why = "clients are checked, and served, without it";
                    findings.report(code::NOT_APPLIED, gateway.object, path, why);
                }
            }
        }
    }
    for found in mesh.all::<VirtualService>() {
        for (index, route) in found.spec.tcp.iter().enumerate() {
            if route.r#match.iter().any(|it| !it.source_subnet.is_empty()) {
                let path = format!("spec.tcp[{index}].match");
                let why = "sourceSubnet is not looked at, so connections from elsewhere match, too";
                findings.report(code::NOT_APPLIED, found.object, path, why);
            }
        }
    }
}

/// Those of a policy and of its ports.
fn of_policy(policy: &TrafficPolicy) -> Vec<(String, &'static str)> {
    let (balancer, outliers) = (policy.load_balancer.as_ref(), policy.outlier_detection.as_ref());
    let mut fields = of_settings("", balancer, outliers);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let at = format!("portLevelSettings[{index}].");
        let (balancer, outliers) = (port.load_balancer.as_ref(), port.outlier_detection.as_ref());
        fields.extend(of_settings(&at, balancer, outliers));
    }
    if policy.retry_budget.as_ref().is_some_and(|it| it.budget_interval.is_some()) {
        let why = "Envoy's budget is of the requests under way, whatever the time";
        fields.push(("retryBudget.budgetInterval".to_owned(), why));
    }
    fields
}

fn of_settings(
    at: &str,
    balancer: Option<&LoadBalancerSettings>,
    outliers: Option<&OutlierDetection>,
) -> Vec<(String, &'static str)> {
    let zones = balancer.is_some_and(|it| it.zone_aware_lb_setting.is_some());
    let codes = outliers.is_some_and(|it| !it.outlier_detection_http_error_codes.is_empty());
    let errors = outliers.is_some_and(|it| it.consecutive_errors != 0);
    [
        (zones, "loadBalancer.zoneAwareLbSetting", "zones get no shares of their own"),
        (
            codes,
            "outlierDetection.outlierDetectionHttpErrorCodes",
            "only statuses of 500 and above count as failures",
        ),
        (errors, "outlierDetection.consecutiveErrors", "consecutive5xxErrors is, in its place"),
    ]
    .into_iter()
    .filter(|(is_set, _, _)| *is_set)
    .map(|(_, field, why)| (format!("{at}{field}"), why))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::object::{SourceFile, read_file};

    fn paths(text: &str) -> Vec<String> {
        let file = SourceFile::new(Path::new("mesh.yaml"), text.to_owned());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let objects: Vec<_> = objects.map(|it| Arc::new(it.unwrap())).collect();
        let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
        let mut findings = Findings::default();
        report(&mesh, &mut findings);
        findings.iter().map(|it| it.path.clone()).collect()
    }

    #[test]
    fn fields_are_named_wherever_they_are_set() {
        let mut found = paths(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\n\
             spec:\n  host: a\n  trafficPolicy:\n    retryBudget: {budgetInterval: 1s}\n    \
             portLevelSettings: [{port: {number: 1}, outlierDetection: {consecutiveErrors: 3}}]\n  \
             subsets:\n  - name: v1\n    trafficPolicy:\n      \
             outlierDetection: {outlierDetectionHttpErrorCodes: [429]}\n",
        );
        found.sort();
        assert_eq!(
            found,
            [
                "spec.subsets[0].trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes",
                "spec.trafficPolicy.portLevelSettings[0].outlierDetection.consecutiveErrors",
                "spec.trafficPolicy.retryBudget.budgetInterval",
            ]
        );
        assert!(paths("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a}\n").is_empty());
    }
}
