//! What an explanation says, step by step, and how it is written: for people or as JSON.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// One choice on a request's way.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// What is chosen: `listener`, `route`, …
    pub(super) kind: &'static str,
    /// What it came to, if anything.
    pub(super) taken: Option<Choice>,
    /// What was not chosen.
    pub(super) others: Vec<Other>,
}

/// What was chosen.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) name: String,
    /// Where it is written.
    pub(super) place: String,
    /// More about it.
    pub(super) details: Vec<String>,
}

/// What was not chosen, and why.
#[derive(Debug, Default)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) why: String,
}

/// A whole explanation.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) request: String,
    pub(super) steps: Vec<Step>,
    /// What the client, or the endpoint, gets.
    pub(super) result: String,
    /// Whether the request comes to a good end.
    pub(super) is_served: bool,
}

impl Report {
    pub(super) fn to_json(&self) -> Value {
        let steps = self.steps.iter().map(|Step { kind, taken, others }| {
            let others = others.iter().map(
                |Other { name, place, why }| json!({"name": name, "place": place, "why_not": why}),
            );
            json!({
                "kind": kind,
                "taken": taken.as_ref().map(|Choice { name, place, details }| {
                    json!({"name": name, "place": place, "details": details})
                }),
                "others": others.collect::<Vec<_>>(),
            })
        });
        json!({
            "request": self.request,
            "steps": steps.collect::<Vec<_>>(),
            "result": self.result,
            "served": self.is_served,
        })
    }

    /// The explanation for people, in colour if wanted.
    pub(super) fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        let paint = |code| if colour { code } else { "" };
        let (bold, dim, bad, reset) =
            (paint("\x1b[1m"), paint("\x1b[2m"), paint("\x1b[31m"), paint("\x1b[0m"));
        let mut line = |arguments: fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = text.write_fmt(arguments);
            text.push('\n');
        };
        line(format_args!("{:<13} {}", "request", self.request));
        for Step { kind, taken, others } in &self.steps {
            match taken {
                Some(Choice { name, place, details }) => {
                    line(format_args!("{kind:<13} {bold}{name}{reset}  {dim}{place}{reset}"));
                    for detail in details {
                        line(format_args!("{:<13}   {detail}", ""));
                    }
                }
                None => line(format_args!("{kind:<13} {bad}none{reset}")),
            }
            for Other { name, place, why } in others {
                line(format_args!("{:<13}   {dim}not {name}: {why}  {place}{reset}", ""));
            }
        }
        let colour = if self.is_served { bold } else { bad };
        line(format_args!("{:<13} {colour}{}{reset}", "result", self.result));
        text
    }
}
