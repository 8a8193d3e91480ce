//! CEL expressions over a request (Envoy's attributes): compiled once, asked with the facts that format strings
//! are written from.

mod attribute;
mod scan;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::parser::{Expression as Ast, Parser};
use cel::{Context, Env, Value};

use super::format::{Facts, Operator};
use attribute::Source;

/// What every expression may call.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    ast: Arc<Ast>,
    reads: Arc<[Read]>,
}

/// An attribute that an expression reads: `root.member`.
#[derive(Debug, Clone, PartialEq)]
struct Read {
    root: &'static str,
    member: Box<str>,
    source: Source,
}

impl Expression {
    /// Compiles `text`.
    ///
    /// # Errors
    /// If it is no CEL, or reads or calls what this proxy does not have.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ast = Parser::default().parse(text).map_err(|errors| {
            let lines = errors.to_string();
            format!("`{text}` is no CEL expression: {}", lines.lines().next().unwrap_or_default())
        })?;
        Self::compile(ast).map_err(|reason| format!("`{text}`: {reason}"))
    }

    /// Compiles a tree.
    ///
    /// # Errors
    /// If it reads or calls what this proxy does not have.
    pub fn compile(mut ast: Ast) -> Result<Self, String> {
        let reads = scan::reads(&mut ast)?;
        Ok(Self { ast: Arc::new(ast), reads: reads.into() })
    }

    /// Whether it is true of `facts`. As in Envoy, what cannot be evaluated is not true.
    pub fn holds(&self, facts: &dyn Facts) -> bool {
        matches!(self.evaluate(facts), Some(Value::Bool(true)))
    }

    /// Appends its value as Envoy prints it; false (and nothing written) if it has none.
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        self.evaluate(facts).is_some_and(|value| text::write(&value, out))
    }

    /// Its value as JSON: numbers and truth values stay what they are, anything else is as
    /// [`write`](Self::write) prints it; none if it has none.
    pub fn json(&self, facts: &dyn Facts) -> Option<serde_json::Value> {
        Some(match self.evaluate(facts)? {
            Value::Bool(value) => value.into(),
            Value::Int(value) => value.into(),
            Value::UInt(value) => value.into(),
            Value::Float(value) => value.into(),
            other => {
                let mut text = Vec::new();
                text::write(&other, &mut text).then(|| String::from_utf8_lossy(&text).into())?
            }
        })
    }

    /// The facts that it is made of.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.reads.iter().flat_map(|read| read.source.operators())
    }

    fn evaluate(&self, facts: &dyn Facts) -> Option<Value> {
        let mut roots = HashMap::<&str, HashMap<String, Value>>::new();
        for Read { root, member, source } in &*self.reads {
            let members = roots.entry(root).or_default();
            if let Some(value) = source.value(facts) {
                members.insert(member.to_string(), value);
            }
        }
        let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
        for (root, members) in roots {
            context.add_variable_from_value(root, members);
        }
        Value::resolve(&self.ast, &context).ok()
    }
}

#[cfg(test)]
mod tests;
