//! Findings for programs: a list with the fields that istioctl prints, and a few more.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::validate::code::Level;
use crate::validate::finding::{Finding, Findings};

/// One finding. The first six fields are istioctl's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'f> {
    code: &'static str,
    level: Level,
    message: &'f str,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documentation_url: Option<String>,
    name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'f str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'f str>,
}

/// Prints all findings as one list.
pub(super) fn print(findings: &Findings, out: &mut dyn Write) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, &messages(findings))?;
    writeln!(out)?;
    Ok(())
}

/// All findings as one list.
pub fn list(findings: &Findings) -> serde_json::Value {
    serde_json::to_value(messages(findings)).unwrap_or_default()
}

fn messages(findings: &Findings) -> Vec<Message<'_>> {
    findings.iter().map(message).collect()
}

fn message(finding: &Finding) -> Message<'_> {
    let id = finding.code.id;
    let istios = id.starts_with("IST");
    let url = "https://istio.io/latest/docs/reference/config/analysis";
    Message {
        code: id,
        level: finding.level(),
        message: &finding.message,
        origin: finding.subject.to_string(),
        reference: finding.reference(),
        documentation_url: istios.then(|| format!("{url}/{}/", id.to_ascii_lowercase())),
        name: finding.code.name,
        path: &finding.path,
        fix: finding.fix.as_deref(),
    }
}
