//! What a source could not read, what it gave twice, and what is read but has no effect here.

use super::code;
use super::finding::{Finding, Findings, Place, Subject};
use crate::model::Mesh;
use crate::model::kind::Kind;
use crate::source::{Failure, ObjectSet};

/// Kinds that are read and listed, and why they have no effect.
const NOT_APPLIED: [(Kind, &str); 3] = [
    (
        Kind::EnvoyFilter,
        "patches of generated Envoy configuration depend on its exact form, which is not istiod's",
    ),
    (Kind::WasmPlugin, "WebAssembly filters are not run"),
    (Kind::UdpRoute, "UDP is not proxied"),
];

pub(super) fn report(set: &ObjectSet, mesh: &Mesh, findings: &mut Findings) {
    for failure in &set.failures {
        match failure {
            Failure::File { name, at, problem, kept } => {
                let stays = match kept {
                    0 => String::new(),
                    kept => format!("; the {kept} objects it had before stay as they were"),
                };
                findings.add(Finding {
                    code: code::UNREADABLE_FILE,
                    subject: Subject {
                        kind: "File".into(),
                        name: name.clone(),
                        place: Place::File(name.clone(), *at),
                    },
                    path: problem.path.clone(),
                    message: format!("{problem}{stays}"),
                    fix: None,
                });
            }
            Failure::Object { unreadable, kept } => {
                let stays = if *kept { "; it stays as it was before" } else { "" };
                let namespace = &unreadable.metadata.namespace;
                let slash = if namespace.is_empty() { "" } else { "/" };
                findings.add(Finding {
                    code: code::SCHEMA_VALIDATION_ERROR,
                    subject: Subject {
                        kind: unreadable.type_meta.kind.clone(),
                        name: format!("{namespace}{slash}{}", unreadable.metadata.name),
                        place: Place::Object(unreadable.origin.clone()),
                    },
                    path: unreadable.problem.path.clone(),
                    message: format!("{}{stays}", unreadable.problem),
                    fix: None,
                });
            }
        }
    }
    for (earlier, later) in mesh.duplicates() {
        let (file, line) = (&later.origin.file.name, later.origin.line);
        let message = format!("ignored, because {file}:{line} has the same kind and name");
        let finding = findings.report(code::DUPLICATE_OBJECT, earlier, "metadata.name", message);
        finding.fix("remove one of the two, or give it another name");
    }
    for (kind, reason) in NOT_APPLIED {
        for object in mesh.of_kind(kind) {
            let message = format!("not applied: {reason}");
            findings.report(code::NOT_APPLIED, object, "", message);
        }
    }
}
