//! Which attributes an expression reads: found once, so that only these are gathered when it is asked.

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, operators};
use cel::common::types::CelString;

use super::Read;
use super::attribute::{Fields, Source, find};
use crate::config::metadata::MetadataOf;

/// The roots of attributes.
const ROOTS: [&str; 9] = [
    "request",
    "response",
    "connection",
    "upstream",
    "source",
    "destination",
    "metadata",
    "filter_state",
    "xds",
];

/// Names of types, which are values too.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Functions of CEL's standard library, besides operators.
const FUNCTIONS: [&str; 28] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "max",
    "min",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "__not_strictly_false__",
];

/// What `ast` reads. Names of headers that it says are put into lower case.
///
/// # Errors
/// If it reads or calls what this proxy does not have.
pub(super) fn reads(ast: &mut IdedExpr) -> Result<Vec<Read>, String> {
    let mut scan = Scan::default();
    scan.expression(&mut ast.expr)?;
    Ok(scan.reads)
}

#[derive(Default)]
struct Scan {
    reads: Vec<Read>,
}

impl Scan {
    fn expression(&mut self, expression: &mut Expr) -> Result<(), String> {
        if let Some((root, member)) = attribute_of(expression) {
            return self.attribute(root, &member);
        }
        if let Some((fields, name)) = field_of(expression) {
            return self.field(fields, &name);
        }
        match expression {
            Expr::Ident(name) => alone(name),
            Expr::Select(select) => self.expression(&mut select.operand.expr),
            Expr::Call(call) => {
                let is_operator = !call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
                if !is_operator && !FUNCTIONS.contains(&&*call.func_name) {
                    return Err(format!("there is no function {}", call.func_name));
                }
                if let Some(target) = &mut call.target {
                    self.expression(&mut target.expr)?;
                }
                self.all(&mut call.args)
            }
            Expr::List(list) => self.all(&mut list.elements),
            Expr::Map(map) => self.entries(&mut map.entries),
            Expr::Struct(message) => Err(format!("{} cannot be built", message.type_name)),
            // As in Envoy: what they cost is anybody's guess.
            Expr::Comprehension(_) => Err("comprehensions are not supported".to_owned()),
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn all(&mut self, parts: &mut [IdedExpr]) -> Result<(), String> {
        parts.iter_mut().try_for_each(|part| self.expression(&mut part.expr))
    }

    fn entries(&mut self, entries: &mut [IdedEntryExpr]) -> Result<(), String> {
        entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => {
                self.expression(&mut entry.key.expr)?;
                self.expression(&mut entry.value.expr)
            }
            EntryExpr::StructField(field) => self.expression(&mut field.value.expr),
        })
    }

    fn attribute(&mut self, root: &'static str, member: &str) -> Result<(), String> {
        if Fields::of(root, member).is_some() {
            return Err(format!("`{root}.{member}` is readable only by names that are literal"));
        }
        if self.reads.iter().any(|read| read.root == root && *read.member == *member) {
            return Ok(());
        }
        let source = match (root, member) {
            // The message itself is the root.
            ("metadata", "filter_metadata") => Source::Namespaces(MetadataOf::Dynamic),
            _ => find(root, member)
                .ok_or_else(|| format!("there is no attribute `{root}.{member}`"))?,
        };
        self.reads.push(Read { root, member: member.into(), source });
        Ok(())
    }

    fn field(&mut self, fields: Fields, name: &str) -> Result<(), String> {
        let operator =
            fields.operator(name).ok_or_else(|| format!("`{name}` is no header name"))?;
        let (root, member) = match fields {
            Fields::Request => ("request", "headers"),
            Fields::Response => ("response", "headers"),
            Fields::Trailers => ("response", "trailers"),
        };
        let known = self.reads.iter_mut().find(|it| it.root == root && *it.member == *member);
        match known.map(|read| &mut read.source) {
            Some(Source::Headers(named)) => named.push((name.into(), operator)),
            _ => {
                let source = Source::Headers(vec![(name.into(), operator)]);
                self.reads.push(Read { root, member: member.into(), source });
            }
        }
        Ok(())
    }
}

/// A name that stands alone.
fn alone(name: &str) -> Result<(), String> {
    if TYPES.contains(&name) {
        Ok(())
    } else if ROOTS.contains(&name) {
        Err(format!("`{name}` is not readable as a whole, only its attributes are"))
    } else {
        Err(format!("there is no attribute `{name}`"))
    }
}

/// The attribute that `expression` is, if it is one: `root.member` or `root['member']`.
fn attribute_of(expression: &Expr) -> Option<(&'static str, String)> {
    let (of, member) = selection(expression)?;
    let Expr::Ident(name) = of else { return None };
    let root = ROOTS.iter().find(|root| **root == *name)?;
    Some((*root, member.to_owned()))
}

/// The one header that `expression` reads, if it reads one: `….headers['name']` or `'name' in ….headers`.
/// Its name is put into lower case.
fn field_of(expression: &mut Expr) -> Option<(Fields, String)> {
    let fields = |of: &Expr| {
        let (root, member) = attribute_of(of)?;
        Fields::of(root, &member)
    };
    if let Some((of, name)) = selection(expression) {
        let (fields, name) = (fields(of)?, name.to_ascii_lowercase());
        if let Expr::Call(call) = expression {
            lower(call.args.get_mut(1)?);
        }
        return Some((fields, name));
    }
    let Expr::Call(call) = expression else { return None };
    let [name, of] = call.args.as_mut_slice() else { return None };
    let fields = fields(&of.expr).filter(|_| call.func_name == operators::IN)?;
    let found = literal(&name.expr)?.to_ascii_lowercase();
    lower(name);
    Some((fields, found))
}

/// `of.member` or `of['member']`.
fn selection(expression: &Expr) -> Option<(&Expr, &str)> {
    match expression {
        Expr::Select(select) => Some((&select.operand.expr, &select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [of, member] = call.args.as_slice() else { return None };
            Some((&of.expr, literal(&member.expr)?))
        }
        _ => None,
    }
}

fn literal(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn lower(name: &mut IdedExpr) {
    if let Some(text) = literal(&name.expr) {
        let text = CelString::from(text.to_ascii_lowercase());
        name.expr = Expr::Literal(LiteralValue::String(text));
    }
}
