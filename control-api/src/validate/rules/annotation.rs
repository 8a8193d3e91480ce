//! Annotations of Istio: known, in their place, not deprecated, with a value that can be.

use std::sync::Arc;

use crate::model::Mesh;
use crate::model::kind::Kind;
use crate::model::object::Object;
use crate::validate::code;
use crate::validate::finding::Findings;

/// Kinds whose annotations are looked at.
const KINDS: [Kind; 4] = [Kind::Namespace, Kind::Service, Kind::Pod, Kind::Deployment];

/// Annotations without their deprecated ones, and the kinds they are for; none means every kind.
const KNOWN: &[(&str, &[&str])] = &[
    ("alpha.istio.io/canonical-serviceaccounts", &["Service"]),
    ("alpha.istio.io/kubernetes-serviceaccounts", &["Service"]),
    ("ambient.istio.io/bypass-inbound-capture", &["Pod"]),
    ("ambient.istio.io/dns-capture", &["Pod"]),
    ("ambient.istio.io/redirection", &["Pod"]),
    ("ambient.istio.io/waypoint-inbound-binding", &["GatewayClass", "Gateway"]),
    ("galley.istio.io/analyze-suppress", &[]),
    ("gateway.istio.io/controller-version", &[]),
    ("gateway.istio.io/name-override", &["Gateway"]),
    ("gateway.istio.io/service-account", &["Gateway"]),
    ("inject.istio.io/templates", &["Pod"]),
    ("istio.io/autoRegistrationGroup", &["WorkloadEntry"]),
    ("istio.io/connectedAt", &["WorkloadEntry"]),
    ("istio.io/disconnectedAt", &["WorkloadEntry"]),
    ("istio.io/dry-run", &["AuthorizationPolicy"]),
    ("istio.io/reroute-virtual-interfaces", &["Pod"]),
    ("istio.io/rev", &["Pod"]),
    ("istio.io/use-waypoint-canary-weight", &["Service", "ServiceEntry", "Namespace"]),
    ("istio.io/workloadController", &["WorkloadEntry"]),
    ("kubernetes.io/ingress.class", &["Ingress"]),
    ("networking.istio.io/exportTo", &["Service"]),
    ("networking.istio.io/service-type", &["Gateway"]),
    ("networking.istio.io/traffic-distribution", &["Namespace", "Service", "ServiceEntry"]),
    ("prometheus.istio.io/merge-metrics", &["Pod"]),
    ("proxy.istio.io/config", &["Pod"]),
    ("proxy.istio.io/overrides", &["Pod"]),
    ("readiness.status.sidecar.istio.io/applicationPorts", &["Pod"]),
    ("readiness.status.sidecar.istio.io/failureThreshold", &["Pod"]),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", &["Pod"]),
    ("readiness.status.sidecar.istio.io/periodSeconds", &["Pod"]),
    ("sidecar.istio.io/agentLogLevel", &["Pod"]),
    ("sidecar.istio.io/bootstrapOverride", &["Pod"]),
    ("sidecar.istio.io/componentLogLevel", &["Pod"]),
    ("sidecar.istio.io/discoveryAddress", &["Pod"]),
    ("sidecar.istio.io/extraStatTags", &["Pod"]),
    ("sidecar.istio.io/inject", &["Pod"]),
    ("sidecar.istio.io/interceptionMode", &["Pod"]),
    ("sidecar.istio.io/logLevel", &["Pod"]),
    ("sidecar.istio.io/nativeSidecar", &["Pod"]),
    ("sidecar.istio.io/proxyCPU", &["Pod"]),
    ("sidecar.istio.io/proxyCPULimit", &["Pod"]),
    ("sidecar.istio.io/proxyImage", &["Pod"]),
    ("sidecar.istio.io/proxyImageType", &["Pod"]),
    ("sidecar.istio.io/proxyMemory", &["Pod"]),
    ("sidecar.istio.io/proxyMemoryLimit", &["Pod"]),
    ("sidecar.istio.io/rewriteAppHTTPProbers", &["Pod"]),
    ("sidecar.istio.io/statsCompression", &["Pod"]),
    ("sidecar.istio.io/statsEvictionInterval", &["Pod"]),
    ("sidecar.istio.io/statsFlushInterval", &["Pod"]),
    ("sidecar.istio.io/statsHistogramBins", &["Pod"]),
    ("sidecar.istio.io/statsHistogramBuckets", &["Pod"]),
    ("sidecar.istio.io/statsInclusionPrefixes", &["Pod"]),
    ("sidecar.istio.io/statsInclusionRegexps", &["Pod"]),
    ("sidecar.istio.io/statsInclusionSuffixes", &["Pod"]),
    ("sidecar.istio.io/status", &["Pod"]),
    ("sidecar.istio.io/userVolume", &["Pod"]),
    ("sidecar.istio.io/userVolumeMount", &["Pod"]),
    ("status.sidecar.istio.io/port", &["Pod"]),
    ("topology.istio.io/controlPlaneClusters", &["Namespace"]),
    ("traffic.istio.io/nodeSelector", &["Service"]),
    ("traffic.sidecar.istio.io/excludeInboundPorts", &["Pod"]),
    ("traffic.sidecar.istio.io/excludeInterfaces", &["Pod"]),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", &["Pod"]),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", &["Pod"]),
    ("traffic.sidecar.istio.io/includeInboundPorts", &["Pod"]),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", &["Pod"]),
    ("traffic.sidecar.istio.io/includeOutboundPorts", &["Pod"]),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", &["Pod"]),
];

/// Annotations that are going away.
const DEPRECATED: &[&str] = &[
    "alpha.istio.io/canonical-serviceaccounts",
    "alpha.istio.io/kubernetes-serviceaccounts",
    "sidecar.istio.io/discoveryAddress",
    "sidecar.istio.io/extraStatTags",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/statsCompression",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
    "traffic.sidecar.istio.io/kubevirtInterfaces",
];

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    for kind in KINDS {
        for object in mesh.of_kind(kind) {
            for (name, value) in &object.metadata.annotations {
                annotation(object, name, value, findings);
            }
        }
    }
}

fn annotation(object: &Arc<Object>, name: &str, value: &str, findings: &mut Findings) {
    let is_istios = name.split('/').next().is_some_and(|domain| domain.ends_with("istio.io"));
    if !is_istios && name != "kubernetes.io/ingress.class" {
        return;
    }
    let path = format!("metadata.annotations[{name}]");
    let Some((_, kinds)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let message = format!("Unknown annotation: {name}");
        let finding = findings.report(code::UNKNOWN_ANNOTATION, object, path, message);
        if let Some(meant) = xds::yaml::nearest(name, KNOWN.iter().map(|(known, _)| *known)) {
            finding.fix(format!("perhaps {meant}"));
        }
        return;
    };
    const INJECT: &str = "sidecar.istio.io/inject";
    // Whoever has the label too knows.
    let knows = name == INJECT && object.metadata.labels.contains_key(INJECT);
    if DEPRECATED.contains(&name) && !knows {
        let message = format!("Annotation {name:?} is deprecated, and may lose its effect");
        let finding = findings.report(code::DEPRECATED_ANNOTATION, object, path.clone(), message);
        if name == INJECT {
            finding.fix(format!("use the label {INJECT:?}"));
        }
    }
    if kinds.is_empty() {
        return;
    }
    if !kinds.contains(&object.type_meta.kind.as_str()) {
        let kinds = kinds.join(", ");
        let message = format!("Misplaced annotation: {name} has an effect only on {kinds}");
        findings.report(code::MISPLACED_ANNOTATION, object, path, message);
        return;
    }
    if let Err(problem) = value_of(name, value) {
        let message = format!("Invalid annotation {name}: {problem}");
        findings.report(code::INVALID_ANNOTATION, object, path, message);
    }
}

fn value_of(name: &str, value: &str) -> Result<(), String> {
    let is = |good: bool, wanted: &str| {
        if good { Ok(()) } else { Err(format!("{value:?} is not {wanted}")) }
    };
    let ports = |value: &str| {
        let mut ports = value.split(',').map(str::trim).filter(|port| !port.is_empty());
        ports.all(|port| port.parse::<u16>().is_ok())
    };
    let ranges = |value: &str| {
        let mut ranges = value.split(',').map(str::trim).filter(|range| !range.is_empty());
        ranges.all(|range| crate::validate::objects::is_subnet(range) && range.contains('/'))
    };
    match name {
        "readiness.status.sidecar.istio.io/initialDelaySeconds"
        | "readiness.status.sidecar.istio.io/periodSeconds"
        | "readiness.status.sidecar.istio.io/failureThreshold" => {
            is(value.parse::<u32>().is_ok(), "a number")
        }
        "status.sidecar.istio.io/port" => is(value.parse::<u16>().is_ok(), "a port"),
        "prometheus.istio.io/merge-metrics" => {
            is(matches!(value, "true" | "false"), "true or false")
        }
        "sidecar.istio.io/interceptionMode" => {
            is(matches!(value, "REDIRECT" | "TPROXY" | "NONE"), "REDIRECT, TPROXY or NONE")
        }
        "traffic.sidecar.istio.io/includeInboundPorts"
        | "traffic.sidecar.istio.io/excludeInboundPorts"
        | "traffic.sidecar.istio.io/includeOutboundPorts"
        | "traffic.sidecar.istio.io/excludeOutboundPorts" => {
            is(value == "*" || ports(value), "a list of ports")
        }
        "traffic.sidecar.istio.io/includeOutboundIPRanges"
        | "traffic.sidecar.istio.io/excludeOutboundIPRanges" => {
            is(value == "*" || ranges(value), "a list of ranges as 10.0.0.0/8")
        }
        _ => Ok(()),
    }
}
