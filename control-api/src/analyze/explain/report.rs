//! An explanation: what was chosen step by step, and the objects that say so.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The width of the first column.
const STEP: usize = 15;

/// How a request fares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was asked.
    pub request: String,
    /// What was chosen, in the order in which it is.
    pub steps: Vec<Step>,
    /// What becomes of the request.
    pub result: String,
    /// Whether it comes to a good end.
    pub served: bool,
}

/// Something that was chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What kind of thing it is.
    pub step: String,
    /// Which one.
    pub is: String,
    /// What else there is to know of it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// The objects it comes from.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub from: Vec<Source>,
}

/// An object that says something, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its kind.
    pub kind: String,
    /// Its namespace and name.
    pub name: String,
    /// The field.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub path: String,
    /// Where it stands, `FILE:LINE`.
    pub at: String,
}

impl Step {
    /// A step without more to say.
    pub(super) fn new(step: &str, is: impl Into<String>) -> Self {
        Self { step: step.to_owned(), is: is.into(), ..Self::default() }
    }

    /// With something more.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With where it comes from.
    pub(super) fn from(mut self, sources: impl IntoIterator<Item = Source>) -> Self {
        self.from.extend(sources);
        self
    }
}

impl Report {
    /// For people to read.
    pub fn text(&self) -> String {
        let mut text = format!("{:<STEP$}{}\n", "request", self.request);
        for Step { step, is, notes, from } in &self.steps {
            let _ = writeln!(text, "{step:<STEP$}{is}");
            for note in notes {
                let _ = writeln!(text, "{:STEP$}{note}", "");
            }
            for Source { kind, name, path, at } in from {
                let field = if path.is_empty() { String::new() } else { format!(" {path}") };
                let _ = writeln!(text, "{:STEP$}@ {kind} {name}{field}  {at}", "");
            }
        }
        let _ = writeln!(text, "{:<STEP$}{}", "result", self.result);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_below_each_other_with_their_sources() {
        let source = Source {
            kind: "VirtualService".to_owned(),
            name: "shop/reviews".to_owned(),
            path: "spec.http[0]".to_owned(),
            at: "a.yaml:7".to_owned(),
        };
        let step = Step::new("route", "prefix /").note("timeout 1s").from([source]);
        let report = Report {
            request: "GET http://reviews/".to_owned(),
            steps: vec![step],
            result: "goes to v1".to_owned(),
            served: true,
        };
        assert_eq!(
            report.text(),
            "request        GET http://reviews/\n\
             route          prefix /\n               timeout 1s\n               \
             @ VirtualService shop/reviews spec.http[0]  a.yaml:7\nresult         goes to v1\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
