//! Findings for people: as istioctl prints them, with the fix below.

use std::io::Write;

use anyhow::Result;

use crate::validate::code::Level;
use crate::validate::finding::Findings;

/// Prints one line per finding, and what to do below it.
pub(super) fn print(
    findings: &Findings,
    objects: usize,
    paths: &str,
    coloured: bool,
    out: &mut dyn Write,
) -> Result<()> {
    for finding in findings {
        let place = finding.reference().map(|place| format!(" {place}")).unwrap_or_default();
        let level = paint(finding.level(), coloured);
        let (code, subject) = (finding.code.id, &finding.subject);
        writeln!(out, "{level} [{code}] ({subject}{place}) {}", finding.message)?;
        if let Some(fix) = &finding.fix {
            writeln!(out, "    fix: {fix}")?;
        }
    }
    if findings.is_empty() {
        writeln!(out, "✔ No issues found in {objects} objects of {paths}.")?;
    } else {
        let of = |level| findings.iter().filter(|finding| finding.level() == level).count();
        let [errors, warnings, infos] = [Level::Error, Level::Warning, Level::Info].map(of);
        writeln!(
            out,
            "{objects} objects of {paths}: {}, {}, {} for information",
            counted(errors, "error"),
            counted(warnings, "warning"),
            infos
        )?;
    }
    Ok(())
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn paint(level: Level, coloured: bool) -> String {
    let colour = match level {
        Level::Error => 31,
        Level::Warning => 33,
        Level::Info => 36,
    };
    if coloured { format!("\u{1b}[1;{colour}m{level}\u{1b}[0m") } else { level.to_string() }
}
