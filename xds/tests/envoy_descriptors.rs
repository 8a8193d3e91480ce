//! Holds the subset against Envoy's own descriptors: every field and enum value we declare must be Envoy's,
//! by number, name, type, label and one-of.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};
use xds::DESCRIPTOR_POOL;

#[test]
fn the_subset_is_a_subset_of_envoys_api() {
    let of_messages = DESCRIPTOR_POOL.all_messages().map(|it| it.package_name().to_owned());
    let of_services = DESCRIPTOR_POOL.services().map(|it| it.package_name().to_owned());
    let packages: BTreeSet<String> = of_messages
        .chain(of_services)
        .filter(|package| package.starts_with("envoy.") && !is_foreign(&format!("{package}.")))
        .collect();
    let Some(envoy) = envoys_descriptors(&packages) else {
        eprintln!(
            "SKIPPED: Envoy's descriptors are not here; `pip install xds-protos` brings them"
        );
        return;
    };
    let mut differences = Vec::new();
    for ours in DESCRIPTOR_POOL.all_messages().filter(is_envoys) {
        match envoy.get_message_by_name(ours.full_name()) {
            Some(theirs) => compare_messages(&ours, &theirs, &mut differences),
            None if NEWER.contains(&ours.full_name()) => {}
            None => differences.push(format!("Envoy has no message {}", ours.full_name())),
        }
    }
    for ours in DESCRIPTOR_POOL.all_enums().filter(|it| it.full_name().starts_with("envoy.")) {
        match envoy.get_enum_by_name(ours.full_name()) {
            Some(theirs) => compare_enums(&ours, &theirs, &mut differences),
            None => differences.push(format!("Envoy has no enum {}", ours.full_name())),
        }
    }
    let services = DESCRIPTOR_POOL.services();
    for ours in services.filter(|it| it.full_name().starts_with("envoy.")) {
        match envoy.get_service_by_name(ours.full_name()) {
            Some(theirs) => compare_services(&ours, &theirs, &mut differences),
            None => differences.push(format!("Envoy has no service {}", ours.full_name())),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Asks Python for them; none if it, or the package that holds them, is not installed.
#[expect(clippy::expect_used, reason = "part of a test")]
fn envoys_descriptors(packages: &BTreeSet<String>) -> Option<DescriptorPool> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy_descriptors.py");
    let output = Command::new("python3").arg(script).args(packages).output().ok()?;
    if output.status.code() == Some(3) {
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(DescriptorPool::decode(output.stdout.as_slice()).expect("descriptors decode"))
}

/// Fields and messages of Envoy's that the published descriptors do not have yet.
const NEWER: [&str; 15] = [
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.http_service",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.grpc_service",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.resource_detectors",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.log_name",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.buffer_flush_interval",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.buffer_size_bytes",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.filter_state_objects_to_log",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.custom_tags",
    "envoy.config.listener.v3.Listener.tcp_keepalive",
    "envoy.config.listener.v3.AdditionalAddress.tcp_keepalive",
    "envoy.extensions.filters.http.compressor.v3.Compressor.CommonDirectionConfig.content_type_matcher",
    "envoy.extensions.filters.http.compressor.v3.Compressor.ResponseDirectionConfig.weaken_etag_on_compress",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing.no_context_propagation",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement.extract_only_without_validation",
    "envoy.extensions.filters.http.jwt_authn.v3.ExtractOnlyWithoutValidation",
];

fn is_envoys(message: &MessageDescriptor) -> bool {
    let name = message.full_name();
    name.starts_with("envoy.") && !message.is_map_entry() && !is_foreign(name)
}

/// Whether a name is one of Envoy's contrib extensions, whose descriptors are not published, or Istio's own.
fn is_foreign(name: &str) -> bool {
    name.starts_with("envoy.tcp.metadataexchange.")
        || name.starts_with("envoy.extensions.load_balancing_policies.peak_ewma.")
        || name.starts_with("envoy.extensions.filters.http.peak_ewma.")
}

fn compare_messages(ours: &MessageDescriptor, theirs: &MessageDescriptor, out: &mut Vec<String>) {
    for field in ours.fields() {
        let place = format!("{}.{}", ours.full_name(), field.name());
        match theirs.get_field(field.number()) {
            None if NEWER.contains(&&*place) => {}
            None => out.push(format!("{place}: Envoy has no field number {}", field.number())),
            Some(other) => {
                let (ours, theirs) = (outline(&field), outline(&other));
                if ours != theirs {
                    out.push(format!("{place}: ours is `{ours}`, Envoy's `{theirs}`"));
                }
            }
        }
    }
}

/// A field as it would be declared.
fn outline(field: &FieldDescriptor) -> String {
    let oneof = match field.containing_oneof() {
        Some(oneof) if !oneof.is_synthetic() => format!("oneof {} ", oneof.name()),
        _ => String::new(),
    };
    let kind = match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => {
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            format!("map<{}, {}>", type_name(&key.kind()), type_name(&value.kind()))
        }
        kind => type_name(&kind),
    };
    format!("{oneof}{:?} {kind} {} = {}", field.cardinality(), field.name(), field.number())
}

fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(known) => known.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    }
}

fn compare_enums(ours: &EnumDescriptor, theirs: &EnumDescriptor, out: &mut Vec<String>) {
    for value in ours.values() {
        let other = theirs.get_value_by_name(value.name());
        if other.is_none_or(|other| other.number() != value.number()) {
            let place = format!("{}.{}", ours.full_name(), value.name());
            out.push(format!("{place}: Envoy has no value of this name and number"));
        }
    }
}

fn compare_services(ours: &ServiceDescriptor, theirs: &ServiceDescriptor, out: &mut Vec<String>) {
    for method in ours.methods() {
        let same = theirs.methods().any(|other| {
            other.name() == method.name()
                && other.input().full_name() == method.input().full_name()
                && other.output().full_name() == method.output().full_name()
                && other.is_client_streaming() == method.is_client_streaming()
                && other.is_server_streaming() == method.is_server_streaming()
        });
        if !same {
            out.push(format!("{}: Envoy has no such method", method.full_name()));
        }
    }
}
