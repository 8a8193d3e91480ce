//! What of the mesh's objects is not applied, or not as it is written: nothing is left out in silence.

mod fields;
mod left_out;

use super::gateway_api::GatewayApi;
use super::{authorization, jwt, providers};
use crate::model::Mesh;
use crate::model::istio::proxy_config::ProxyConfig;
use crate::model::istio::service_entry::{Resolution, ServiceEntry};
use crate::model::istio::telemetry::Telemetry;
use crate::model::istio::virtual_service::VirtualService;
use crate::model::kind::Kind;
use crate::model::proxy_settings::{self, ANNOTATION};
use crate::validate::code;
use crate::validate::finding::{Finding, Findings, Place, Subject};

/// Adds a finding for each object, or field of one, that proxies are not told of.
pub fn report(mesh: &Mesh, findings: &mut Findings) {
    for (policy, why) in authorization::unapplied(mesh) {
        findings.report(code::NOT_APPLIED, policy.object, "spec", why);
    }
    for (policy, path, why) in jwt::unapplied(mesh) {
        findings.report(code::NOT_APPLIED, policy.object, path, why);
    }
    for (file, problem) in &mesh.unread_settings {
        findings.add(Finding {
            code: code::NOT_APPLIED,
            subject: Subject {
                kind: "MeshConfig".to_owned(),
                place: Place::File(file.clone(), None),
                ..Subject::default()
            },
            path: problem.path.clone(),
            message: problem.reason.clone(),
            fix: None,
        });
    }
    telemetry(mesh, findings);
    rules_of_one_host(mesh, findings);
    routes(mesh, findings);
    fields::report(mesh, findings);
    left_out::report(mesh, findings);
    settings(mesh, findings);
}

/// The Gateway API, and what Envoy has no word for.
fn routes(mesh: &Mesh, findings: &mut Findings) {
    for problem in GatewayApi::new(mesh).problems {
        findings.report(code::NOT_APPLIED, problem.object, problem.path, problem.message);
    }
    for object in mesh.of_kind(Kind::BackendTlsPolicy) {
        let why = "proxies are not told of it";
        findings.report(code::NOT_APPLIED, object, "spec", why);
    }
    for entry in mesh.all::<ServiceEntry>() {
        if entry.spec.resolution == Resolution::DynamicDns {
            let why = "listeners do not resolve the names that connections ask for";
            findings.report(code::NOT_APPLIED, entry.object, "spec.resolution", why);
        }
    }
    for found in mesh.all::<VirtualService>() {
        for (index, route) in found.spec.http.iter().enumerate() {
            let fault = route.fault.as_ref();
            let delay = fault.and_then(|it| it.delay.as_ref());
            if delay.is_some_and(|it| it.exponential_delay.is_some()) {
                let path = format!("spec.http[{index}].fault.delay.exponentialDelay");
                let why = "only fixed delays are";
                findings.report(code::NOT_APPLIED, found.object, path, why);
            }
            let abort = fault.and_then(|it| it.abort.as_ref());
            if abort.is_some_and(|it| it.http2_error.is_some()) {
                let path = format!("spec.http[{index}].fault.abort.http2Error");
                let why = "only statuses of HTTP and gRPC are";
                findings.report(code::NOT_APPLIED, found.object, path, why);
            }
        }
    }
}

/// Providers that are no providers, or that proxies cannot be told of.
fn telemetry(mesh: &Mesh, findings: &mut Findings) {
    for telemetry in mesh.all::<Telemetry>() {
        let spec = telemetry.spec;
        let logs = spec.access_logging.iter().map(|it| ("accessLogging", &it.providers));
        let traces = spec.tracing.iter().map(|it| ("tracing", &it.providers));
        let metrics = spec.metrics.iter().map(|it| ("metrics", &it.providers));
        for (what, names) in logs.chain(traces).chain(metrics) {
            for name in names.iter().map(|it| it.name.as_str()) {
                let provider = providers::named(mesh, name);
                let fits = provider.is_some_and(|it| match what {
                    "accessLogging" => {
                        it.envoy_file_access_log.is_some()
                            || it.envoy_http_als.is_some()
                            || it.envoy_tcp_als.is_some()
                            || it.envoy_otel_als.is_some()
                    }
                    "tracing" => it.zipkin.is_some() || it.opentelemetry.is_some(),
                    _ => it.prometheus.is_some(),
                });
                if !fits {
                    let why = format!("{name:?} is no provider that {what} can be told of");
                    let path = format!("spec.{what}");
                    findings.report(code::NOT_APPLIED, telemetry.object, path, why);
                }
            }
        }
    }
}

/// What rules for a host say that others said before.
fn rules_of_one_host(mesh: &Mesh, findings: &mut Findings) {
    for left_out in mesh.destination_rules().left_out() {
        let before = left_out.before.full_name();
        let why = format!("DestinationRule {before}, which goes before, has it for this host, too");
        findings.report(code::NOT_APPLIED, &left_out.object, left_out.path.clone(), why);
    }
}

/// Settings of proxies that only whatever starts them could follow.
fn settings(mesh: &Mesh, findings: &mut Findings) {
    for config in mesh.all::<ProxyConfig>() {
        let why = "proxies take these settings when they are started, not from the control plane";
        findings.report(code::NOT_APPLIED, config.object, "spec", why);
    }
    for workload in mesh.workloads() {
        let Some(reading) = proxy_settings::reading(&workload) else { continue };
        let at = match workload.object.kind() {
            Kind::Pod => "metadata.annotations",
            _ => "spec.template.metadata.annotations",
        };
        let mut report = |why: String| {
            let why = format!("{ANNOTATION}: {why}");
            findings.report(code::NOT_APPLIED, workload.object, at, why);
        };
        if let Err(problem) = &reading.value {
            report(problem.to_string());
        }
        for unknown in &reading.unknown {
            report(format!("{}: proxies are not told of it", unknown.path));
        }
    }
}
