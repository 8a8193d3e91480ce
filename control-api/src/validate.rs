//! What is wrong with a mesh, or looks like a mistake: findings with their place and the fix.
//!
//! [`objects`] looks at each object alone; [`mod@rules`] are Istio's analyzers, which look at several together. Neither
//! changes anything nor fails: whatever the mesh holds, the answer is a list.

pub mod code;
pub mod finding;
pub mod objects;
pub mod rules;
mod unread;

use std::sync::Arc;

use finding::Findings;

use crate::model::Mesh;
use crate::model::object::Object;
use crate::source::ObjectSet;

/// A check of the mesh.
pub struct Rule {
    /// Its name, that of Istio's analyzer where there is one.
    pub name: &'static str,
    /// What it looks for.
    pub about: &'static str,
    check: fn(&Mesh, &mut Findings),
}

impl Rule {
    /// Looks for what it is about.
    pub fn check(&self, mesh: &Mesh, findings: &mut Findings) {
        (self.check)(mesh, findings);
    }
}

/// Every check of whole meshes.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    rules::ALL.iter()
}

/// Everything there is to say about a set of objects and the mesh they make, sorted by place.
pub fn everything(set: &ObjectSet, mesh: &Mesh) -> Findings {
    let mut findings = Findings::default();
    unread::report(set, mesh, &mut findings);
    for object in mesh.objects() {
        one_object(object, &mut findings);
    }
    for rule in rules() {
        rule.check(mesh, &mut findings);
    }
    findings.suppress_annotated(mesh);
    findings.sort();
    findings
}

/// What there is to say about an object alone.
pub fn one_object(object: &Arc<Object>, findings: &mut Findings) {
    for problem in &object.unknown {
        let message = problem.reason.clone();
        findings.report(code::SCHEMA_WARNING, object, &problem.path, message);
    }
    objects::check(object, findings);
}
