//! Findings for people: as istioctl prints them, with the fix below.

use std::io::{IsTerminal, Write};

use anyhow::Result;

use crate::validate::code::Level;
use crate::validate::finding::{Finding, Findings};

/// Prints one line per finding, and what to do below it.
pub(super) fn print(
    findings: &Findings,
    objects: usize,
    paths: &str,
    coloured: bool,
    out: &mut dyn Write,
) -> Result<()> {
    for finding in findings {
        writeln!(out, "{}", line(finding, coloured))?;
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

/// A finding with what to do below it.
pub fn line(finding: &Finding, coloured: bool) -> String {
    let place = finding.reference().map(|place| format!(" {place}")).unwrap_or_default();
    let level = paint(finding.level(), coloured);
    let (code, subject) = (finding.code.id, &finding.subject);
    let fix = finding.fix.as_ref().map(|fix| format!("\n    fix: {fix}")).unwrap_or_default();
    format!("{level} [{code}] ({subject}{place}) {}{fix}", finding.message)
}

/// Whether people want colours there: it is a terminal, and they have not said `NO_COLOR`.
pub fn coloured(out: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()) && out.is_terminal()
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
