//! Reads Kubernetes-style YAML into Rust types through serde; what is wrong or unknown keeps its field's path.
//!
//! A struct's fields may be spelled in lowerCamelCase or, as protobuf's JSON has it, in snake_case. A `null`
//! means that the field is left out. Fields that nobody reads are noted, not refused: they are findings.
//! An enum is either a name, or a `oneof`: a map of which exactly one key is set.

mod access;
mod scalar;

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeOwned, Visitor};
use xds::yaml::tree::{Node, Value};

use access::{Entries, Items, OneOf};

/// Something wrong at a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The field, as `spec.http[0].timeout`; empty for the object as a whole.
    pub path: String,
    /// What is wrong, in the words of a Kubernetes API server.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// What came of reading a value.
#[derive(Debug)]
pub struct Reading<T> {
    /// The value, or the first thing that kept it from being one.
    pub value: Result<T, Problem>,
    /// Fields that nothing reads.
    pub unknown: Vec<Problem>,
}

/// Reads the value `node`, which stands at `path`; the fields `skip` of its own are somebody else's.
pub fn read<T: DeserializeOwned>(node: &Node<'_>, path: &str, skip: &[&str]) -> Reading<T> {
    let unknown = RefCell::default();
    let start = if path.is_empty() { Path::Root } else { Path::Field(&Path::Root, path) };
    let reader = Reader { node, path: &start, unknown: &unknown, skip };
    let value = T::deserialize(reader).map_err(|error| error.at(&start));
    Reading { value, unknown: unknown.into_inner() }
}

/// The value of a map's key, if `node` is a map and has it.
pub fn get<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
}

/// The text of a scalar below `key`; none if it is null.
pub fn text<'n>(node: &'n Node<'_>, key: &str) -> Option<&'n str> {
    let node = get(node, key).filter(|node| !node.is_null())?;
    let Value::Scalar { text, .. } = &node.value else { return None };
    Some(text)
}

/// Where a value stands, as a chain that lives on the stack.
#[derive(Debug, Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_word = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) if is_word(name) => write!(f, "{parent}.{name}"),
            Path::Field(parent, name) => write!(f, "{parent}[{name}]"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Why a value could not be read. The innermost reader adds the place.
#[derive(Debug)]
pub(crate) struct Error {
    problem: Problem,
    placed: bool,
}

impl Error {
    fn new(reason: impl Into<String>) -> Self {
        let problem = Problem { path: String::new(), reason: reason.into() };
        Self { problem, placed: false }
    }

    fn at(mut self, path: &Path<'_>) -> Problem {
        if !self.placed {
            let dot = if self.problem.path.is_empty() { "" } else { "." };
            self.problem.path = format!("{path}{dot}{}", self.problem.path);
            // Some of an API server's sentences name the field once more.
            self.problem.reason = self.problem.reason.replace("{path}", &self.problem.path);
        }
        self.problem
    }

    fn placed(self, path: &Path<'_>) -> Self {
        Self { problem: self.at(path), placed: true }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        let problem = Problem { path: field.to_owned(), reason: "Required value".to_owned() };
        Self { problem, placed: false }
    }
}

/// A value that serde may ask.
#[derive(Clone, Copy)]
struct Reader<'r, 'n> {
    node: &'r Node<'n>,
    path: &'r Path<'r>,
    unknown: &'r RefCell<Vec<Problem>>,
    skip: &'r [&'r str],
}

impl<'r, 'n> Reader<'r, 'n> {
    fn below<'c>(&self, node: &'c Node<'n>, path: &'c Path<'c>) -> Reader<'c, 'n>
    where
        'r: 'c,
    {
        Reader { node, path, unknown: self.unknown, skip: &[] }
    }

    fn note_unknown(&self, name: &str, known: &[&'static str]) {
        let path = Path::Field(self.path, name).to_string();
        let meant = xds::yaml::nearest(name, known.iter().copied().filter(|it| *it != name));
        let hint = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        let reason = format!("unknown field {path:?}{hint}");
        self.unknown.borrow_mut().push(Problem { path, reason });
    }

    fn must_be(&self, wanted: &str) -> Error {
        let found = match &self.node.value {
            Value::Scalar { text, .. } => format!("{text:?}"),
            _ => format!("{:?}", self.node.kind()),
        };
        Error::new(format!("Invalid value: {found}: {{path}} in body must be of type {wanted}"))
    }
}

/// Forwards serde's question to a method that gives the error its place.
macro_rules! answer {
    ($($question:ident($($name:ident: $type:ty),*) = $answer:ident;)*) => { $(
        fn $question<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, Error> {
            self.$answer($($name,)* visitor).map_err(|error| error.placed(self.path))
        }
    )* };
}

impl<'de> de::Deserializer<'de> for Reader<'_, '_> {
    type Error = Error;

    answer! {
        deserialize_any() = any;
        deserialize_bool() = boolean;
        deserialize_i8() = integer;
        deserialize_i16() = integer;
        deserialize_i32() = integer;
        deserialize_i64() = integer;
        deserialize_u8() = unsigned;
        deserialize_u16() = unsigned;
        deserialize_u32() = unsigned;
        deserialize_u64() = unsigned;
        deserialize_f32() = float;
        deserialize_f64() = float;
        deserialize_char() = string;
        deserialize_str() = string;
        deserialize_string() = string;
        deserialize_bytes() = string;
        deserialize_byte_buf() = string;
        deserialize_option() = option;
        deserialize_unit() = unit;
        deserialize_unit_struct(_name: &'static str) = unit_struct;
        deserialize_newtype_struct(_name: &'static str) = newtype;
        deserialize_seq() = list;
        deserialize_tuple(_length: usize) = tuple;
        deserialize_tuple_struct(_name: &'static str, _length: usize) = tuple_struct;
        deserialize_map() = map;
        deserialize_struct(_name: &'static str, fields: &'static [&'static str]) = fields;
        deserialize_enum(_name: &'static str, variants: &'static [&'static str]) = one_of;
        deserialize_identifier() = string;
        deserialize_ignored_any() = unit;
    }
}

impl<'de> Reader<'_, '_> {
    fn option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    #[expect(clippy::unused_self, reason = "the form of all answers")]
    fn unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn unit_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, Error> {
        self.unit(visitor)
    }

    fn newtype<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn tuple_struct<V: Visitor<'de>>(
        self,
        _: &str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn list<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items::new(self, items)),
            _ => Err(self.must_be("array")),
        }
    }

    fn map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Entries::new(self, entries, None)),
            _ => Err(self.must_be("object")),
        }
    }

    fn fields<V: Visitor<'de>>(
        self,
        _: &str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Entries::new(self, entries, Some(fields))),
            _ => Err(self.must_be("object")),
        }
    }

    fn one_of<V: Visitor<'de>>(
        self,
        _: &str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(OneOf::choose(self, variants)?)
    }

    fn any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            _ if self.node.is_null() => visitor.visit_unit(),
            Value::Scalar { text, plain: true } => scalar::visit(text, visitor),
            Value::Scalar { text, plain: false } => visitor.visit_str(text),
            Value::List(_) => self.list(visitor),
            Value::Map(_) => self.map(visitor),
        }
    }
}

#[cfg(test)]
mod tests;
