//! Reports about fields of one object, and the checks that many fields share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::model::istio::selector::{PolicyTargetReference, WorkloadSelector};
use crate::model::object::Object;
use crate::validate::code;
use crate::validate::finding::{Finding, Findings};

/// The object that is checked, and what was found.
pub(super) struct Check<'c> {
    pub(super) object: &'c Object,
    findings: &'c mut Findings,
}

impl<'c> Check<'c> {
    pub(super) fn new(object: &'c Object, findings: &'c mut Findings) -> Self {
        Self { object, findings }
    }

    /// The field at `path` makes the object useless.
    pub(super) fn error(&mut self, path: &str, reason: impl Display) -> &mut Finding {
        let message = format!("{path}: {reason}");
        self.findings.report(code::SCHEMA_VALIDATION_ERROR, self.object, path, message)
    }

    /// An error about this very value.
    pub(super) fn invalid(&mut self, path: &str, value: impl Display, reason: impl Display) {
        self.error(path, format!("Invalid value: {value}: {reason}"));
    }

    /// The field at `path` is probably a mistake.
    pub(super) fn warn(&mut self, path: &str, reason: impl Display) -> &mut Finding {
        let message = format!("{path}: {reason}");
        self.findings.report(code::SCHEMA_WARNING, self.object, path, message)
    }

    /// A finding with a code of its own.
    pub(super) fn report(
        &mut self,
        code: code::Code,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.findings.report(code, self.object, path, message)
    }

    /// The field must not be empty.
    pub(super) fn required(&mut self, path: &str, value: &str) {
        if value.is_empty() {
            self.error(path, "Required value");
        }
    }

    /// None of the strings may be empty.
    pub(super) fn not_empty(&mut self, path: &str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            self.min_length(&format!("{path}[{index}]"), value);
        }
    }

    /// The string may not be empty.
    pub(super) fn min_length(&mut self, path: &str, value: &str) {
        if value.is_empty() {
            let reason = format!("{path} in body should be at least 1 chars long");
            self.invalid(path, "\"\"", reason);
        }
    }

    /// A port's number.
    pub(super) fn port(&mut self, path: &str, number: u32) {
        if !(1..=65535).contains(&number) {
            self.invalid(path, "\"integer\"", "port must be between 1-65535");
        }
    }

    /// A number from 0 to 100.
    pub(super) fn percent(&mut self, path: &str, value: f64) {
        if !(0.0..=100.0).contains(&value) {
            self.invalid(path, value, "must be from 0 to 100");
        }
    }

    /// A number of things.
    pub(super) fn not_negative(&mut self, path: &str, value: i64) {
        if value < 0 {
            let reason = format!("{path} in body should be greater than or equal to 0");
            self.invalid(path, value, reason);
        }
    }

    /// What may occur only once.
    pub(super) fn unique<'v>(
        &mut self,
        path: &str,
        field: &str,
        values: impl Iterator<Item = &'v str>,
    ) {
        let mut seen = BTreeSet::new();
        for (index, value) in values.enumerate() {
            if !seen.insert(value) {
                let dot = if field.is_empty() { "" } else { "." };
                self.error(
                    &format!("{path}[{index}]{dot}{field}"),
                    format!("Duplicate value: {value:?}"),
                );
            }
        }
    }

    /// An RE2 expression.
    pub(super) fn regex(&mut self, path: &str, expression: &str) {
        if expression.len() > 1024 {
            self.error(path, "Too long: a regular expression has at most 1024 bytes");
        }
        if let Err(error) = regex::Regex::new(expression) {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            self.invalid(
                path,
                format!("{expression:?}"),
                format!("no regular expression: {reason}"),
            );
        }
    }

    /// Labels that select pods, at `spec.selector.matchLabels`.
    pub(super) fn selector(&mut self, selector: Option<&WorkloadSelector>) {
        let path = "spec.selector.matchLabels";
        self.labels(path, selector.map(|it| &it.match_labels), "wildcard not allowed in label");
    }

    /// Labels that select pods; `wildcard` says what is wrong with a `*`.
    pub(super) fn labels(
        &mut self,
        path: &str,
        labels: Option<&BTreeMap<String, String>>,
        wildcard: &str,
    ) {
        for (key, value) in labels.into_iter().flatten() {
            if key.is_empty() {
                self.invalid(path, "\"object\"", "key must not be empty");
            }
            for (text, part) in [(key, "key"), (value, "value")] {
                if text.contains('*') {
                    let path = format!("{path}[{key}]");
                    self.invalid(&path, format!("{text:?}"), format!("{wildcard} {part} match"));
                }
            }
        }
    }

    /// A policy is for selected workloads, or for named objects, or for all of its namespace.
    pub(super) fn targets(
        &mut self,
        selector: Option<&WorkloadSelector>,
        target: Option<&PolicyTargetReference>,
        targets: &[PolicyTargetReference],
    ) {
        let given = [selector.is_some(), target.is_some(), !targets.is_empty()];
        if given.iter().filter(|given| **given).count() > 1 {
            self.invalid("spec", "\"object\"", "only one of targetRefs or selector can be set");
        }
        self.selector(selector);
        if let Some(target) = target {
            self.target("spec.targetRef", target);
        }
        for (index, target) in targets.iter().enumerate() {
            self.target(&format!("spec.targetRefs[{index}]"), target);
        }
    }

    fn target(&mut self, path: &str, target: &PolicyTargetReference) {
        let PolicyTargetReference { group, kind, name, namespace } = target;
        if !group.is_empty() && !super::host::is_dns_subdomain(group) {
            let field = format!("{path}.group");
            let wanted = "a DNS name in lower case, or empty for Kubernetes' core";
            self.invalid(
                &field,
                format!("{group:?}"),
                format!("{field} in body should match {wanted}"),
            );
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if kind.is_empty() || !kind.bytes().all(word) {
            let field = format!("{path}.kind");
            let wanted = "letters, digits and '-'";
            self.invalid(
                &field,
                format!("{kind:?}"),
                format!("{field} in body should match {wanted}"),
            );
        }
        self.required(&format!("{path}.name"), name);
        if !namespace.is_empty() && *namespace != self.object.metadata.namespace {
            let reason = "cross namespace referencing is not currently supported";
            self.invalid(&format!("{path}.namespace"), format!("{namespace:?}"), reason);
        }
    }

    /// `exportTo`: namespaces, `.`, `*`, or for a service entry `~`.
    pub(super) fn export_to(&mut self, export_to: &[String], none: bool) {
        let path = "spec.exportTo";
        self.unique(path, "", export_to.iter().map(String::as_str));
        for (index, namespace) in export_to.iter().enumerate() {
            let known = matches!(namespace.as_str(), "." | "*") || none && namespace == "~";
            if !known && !super::host::is_dns_label(namespace) {
                let reason = "must be '.', '*' or a namespace";
                self.invalid(&format!("{path}[{index}]"), format!("{namespace:?}"), reason);
            }
            if namespace == "*" && export_to.len() > 1 {
                let reason = "is already everything, the other entries have no effect";
                self.error(&format!("{path}[{index}]"), format!("Invalid value: \"*\": {reason}"));
            }
        }
    }
}
