//! What of the mesh's objects is not applied, or not as it is written: nothing is left out in silence.

use super::{authorization, jwt};
use crate::model::Mesh;
use crate::validate::code;
use crate::validate::finding::Findings;

/// Adds a finding for each object, or field of one, that proxies are not told of.
pub fn report(mesh: &Mesh, findings: &mut Findings) {
    for (policy, why) in authorization::unapplied(mesh) {
        findings.report(code::NOT_APPLIED, policy.object, "spec", why);
    }
    for (policy, path, why) in jwt::unapplied(mesh) {
        findings.report(code::NOT_APPLIED, policy.object, path, why);
    }
}
