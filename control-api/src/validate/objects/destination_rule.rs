//! `DestinationRule`: a host, subsets with names, and policies that make sense.

use super::check::Check;
use super::host;
use super::traffic_policy;
use crate::model::istio::destination_rule::DestinationRule;

pub(super) fn check(spec: &DestinationRule, check: &mut Check<'_>) {
    if spec.host.is_empty() {
        check.required("spec.host", &spec.host);
    } else {
        check.wildcard_host("spec.host", &spec.host);
    }
    traffic_policy::check("spec.trafficPolicy", spec.traffic_policy.as_ref(), check);
    check.unique("spec.subsets", "name", spec.subsets.iter().map(|subset| subset.name.as_str()));
    for (at, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{at}]");
        if subset.name.is_empty() {
            check.required(&format!("{path}.name"), &subset.name);
        } else if !host::is_dns_label(&subset.name) {
            let value = format!("{:?}", subset.name);
            let reason = "must be in lower case, with digits and '-'";
            check.invalid(&format!("{path}.name"), value, reason);
        }
        check.labels(
            &format!("{path}.labels"),
            Some(&subset.labels),
            "wildcard not allowed in label",
        );
        let policy = subset.traffic_policy.as_ref();
        traffic_policy::check(&format!("{path}.trafficPolicy"), policy, check);
    }
    check.export_to(&spec.export_to, false);
    let labels = spec.workload_selector.as_ref().map(|selector| &selector.match_labels);
    check.labels("spec.workloadSelector.matchLabels", labels, "wildcard not allowed in label");
}
