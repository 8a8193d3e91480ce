//! YAML text as a tree in which every node knows its line and column, within limits on depth and size.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::Position;

/// Deepest nesting of lists and maps: far beyond any real configuration, far from the end of a stack.
const MAX_DEPTH: usize = 128;
/// Most nodes of one document.
const MAX_NODES: usize = 20_000_000;
/// Most nodes that aliases may add, against documents that double themselves.
const MAX_ALIASED_NODES: usize = 1_000_000;

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    /// Where it starts.
    pub at: Position,
    /// What it holds.
    pub value: Value<'a>,
}

/// What a node holds. Scalars stay text: the field they are for says how to read them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A scalar's text; `plain` if it may be more than a string: no quotes, no `!!str`.
    Scalar {
        /// As it reads, escapes resolved.
        text: Cow<'a, str>,
        /// Whether it is written without quotes.
        plain: bool,
    },
    /// A list's items.
    List(Vec<Node<'a>>),
    /// A map's entries in the order of the text; no key occurs twice.
    Map(Vec<(Key<'a>, Node<'a>)>),
}

/// A map's key and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Key<'a> {
    /// Where it starts.
    pub at: Position,
    /// The key, escapes resolved.
    pub text: Cow<'a, str>,
}

/// Why a text is no usable YAML.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// Where.
    pub at: Position,
    /// The value that is being read, made on the way up from it.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl Malformed {
    fn new(at: Position, reason: impl Into<String>) -> Self {
        Self { at, path: String::new(), reason: reason.into() }
    }

    fn in_item(mut self, index: usize) -> Self {
        self.prepend(&format!("[{index}]"));
        self
    }

    fn in_key(mut self, key: &str) -> Self {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if key.bytes().all(is_word) {
            self.prepend(key);
        } else {
            self.prepend(&format!("[{key:?}]"));
        }
        self
    }

    fn prepend(&mut self, step: &str) {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
    }
}

impl Node<'_> {
    /// Whether this is YAML's null: left out, `~` or `null`, not in quotes.
    pub fn is_null(&self) -> bool {
        matches!(
            &self.value,
            Value::Scalar { text, plain: true }
                if matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL")
        )
    }

    /// What this is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            _ if self.is_null() => "null",
            Value::Scalar { .. } => "a scalar",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|(_, value)| value.count()).sum(),
        }
    }
}

/// Parses a text that holds exactly one YAML (or JSON) document. An empty text is null.
pub(super) fn parse(text: &str) -> Result<Node<'_>, Malformed> {
    let mut builder = Builder::new(text);
    let Some(root) = builder.document()? else {
        let empty = Value::Scalar { text: Cow::Borrowed(""), plain: true };
        return Ok(Node { at: Position { line: 1, column: 1 }, value: empty });
    };
    match builder.document()? {
        Some(second) => Err(Malformed::new(
            second.at,
            "a second document starts here: one file holds one document",
        )),
        None => Ok(root),
    }
}

/// Parses a text that holds any number of documents, divided by `---`.
///
/// # Errors
/// The text is no YAML, or goes beyond the limits on depth and size; none of its documents is given then.
pub fn parse_all(text: &str) -> Result<Vec<Node<'_>>, Malformed> {
    let mut builder = Builder::new(text);
    let mut documents = Vec::new();
    while let Some(document) = builder.document()? {
        documents.push(document);
    }
    Ok(documents)
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    nodes: usize,
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        let options = granit_parser::options! { emit_comments: false };
        let parser = Parser::new_from_str_with_options(text, options);
        Self { parser, anchors: HashMap::new(), nodes: 0, aliased: 0 }
    }

    /// The next document; none at the end of the text.
    fn document(&mut self) -> Result<Option<Node<'a>>, Malformed> {
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                // Anchors end with their document.
                Event::DocumentStart(..) => self.anchors.clear(),
                event => return self.node(event, &span, 0).map(Some),
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Malformed> {
        self.parser.next().transpose().map_err(|error| {
            let marker = error.marker();
            Malformed::new(Position::new(marker.line(), marker.col()), error.info())
        })
    }

    fn expect_next(&mut self, parent: Position) -> Result<(Event<'a>, Span), Malformed> {
        self.next()?.ok_or_else(|| Malformed::new(parent, "this list or map never ends"))
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node<'a>, Malformed> {
        let at = position(span);
        if depth > MAX_DEPTH {
            return Err(Malformed::new(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Malformed::new(at, format!("more than {MAX_NODES} values in one file")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = is_plain(style, tag.as_deref()).map_err(|e| Malformed::new(at, e))?;
                (Value::Scalar { text, plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Value::List(self.list(at, depth)?), anchor),
            Event::MappingStart(_, anchor, _) => (Value::Map(self.map(at, depth)?), anchor),
            Event::Alias(anchor) => return self.alias(anchor, at),
            other => {
                return Err(Malformed::new(at, format!("a value was expected, not {other:?}")));
            }
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, at: Position, depth: usize) -> Result<Vec<Node<'a>>, Malformed> {
        let mut items = Vec::new();
        loop {
            match self.expect_next(at)? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => {
                    let item = self.node(event, &span, depth + 1);
                    items.push(item.map_err(|error| error.in_item(items.len()))?);
                }
            }
        }
    }

    fn map(&mut self, at: Position, depth: usize) -> Result<Vec<(Key<'a>, Node<'a>)>, Malformed> {
        let mut entries = Vec::new();
        let mut seen: HashMap<Cow<'a, str>, Position> = HashMap::new();
        loop {
            let (event, span) = self.expect_next(at)?;
            let at = position(&span);
            let text = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => text,
                _ => return Err(Malformed::new(at, "a map's key must be a scalar")),
            };
            if let Some(first) = seen.insert(text.clone(), at) {
                let reason = format!("duplicate key {text:?}, first given at {first}");
                return Err(Malformed::new(at, reason).in_key(&text));
            }
            let value = self
                .expect_next(at)
                .and_then(|(event, span)| self.node(event, &span, depth + 1))
                .map_err(|error| error.in_key(&text))?;
            entries.push((Key { at, text }, value));
        }
    }

    /// A copy of the anchored node; its parts keep the positions where they are written.
    fn alias(&mut self, anchor: usize, at: Position) -> Result<Node<'a>, Malformed> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Malformed::new(at, "an alias inside the value it stands for"));
        };
        self.aliased += node.count();
        if self.aliased > MAX_ALIASED_NODES {
            let reason = format!("aliases add more than {MAX_ALIASED_NODES} values");
            return Err(Malformed::new(at, reason));
        }
        Ok(node.clone())
    }
}

/// Whether a scalar may be more than a string: written without quotes and not tagged as a string.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>) -> Result<bool, String> {
    match tag {
        None => Ok(style == ScalarStyle::Plain),
        Some(tag) if tag.is_yaml_core_schema() => {
            Ok(style == ScalarStyle::Plain && tag.suffix() != "str")
        }
        Some(tag) => Err(format!("the tag {tag} has no meaning here")),
    }
}

fn position(span: &Span) -> Position {
    Position::new(span.start.line(), span.start.col())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        format!("{}: {}: {}", error.at, error.path, error.reason)
    }

    #[test]
    fn nodes_know_where_they_are() {
        let root = parse("a:\n  - b: 1\n    c: 'x'\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let Value::List(items) = &entries[0].1.value else { panic!("{root:?}") };
        let Value::Map(inner) = &items[0].value else { panic!("{root:?}") };
        assert_eq!(inner[1].0.at, Position { line: 3, column: 5 });
        assert_eq!(inner[1].1.at, Position { line: 3, column: 8 });
        assert_eq!(inner[1].1.value, Value::Scalar { text: "x".into(), plain: false });
    }

    #[test]
    fn json_is_yaml() {
        let text = "{\"a\": [1, \"\\u00e9\\ud83d\\ude00\\/\"],\n\t\"b\": {\"c\": null}}";
        let root = parse(text).unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let Value::List(items) = &entries[0].1.value else { panic!("{root:?}") };
        assert_eq!(items[1].value, Value::Scalar { text: "é😀/".into(), plain: false });
        assert_eq!(entries[1].0.at.line, 2);
    }

    #[test]
    fn aliases_copy_and_cannot_explode() {
        let root = parse("a: &x {k: v}\nb: *x\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        assert_eq!(entries[0].1, entries[1].1);

        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let last = level - 1;
            bomb.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                [format!("*a{last}").as_str(); 10].join(",")
            ));
        }
        assert!(error(&bomb).contains("aliases add more than"));
    }

    #[test]
    fn what_is_refused_names_its_place() {
        assert_eq!(
            error("node:\n  id: a\n  id: b\n"),
            "3:3: node.id: duplicate key \"id\", first given at 2:3"
        );
        assert!(error("a: 1\n---\nb: 2\n").starts_with("3:1: : a second document"));
        assert!(error("[1, 2").starts_with("1:"));
        assert!(error("a: {b.c: [1, !secret x]}").contains(": a[\"b.c\"][1]: the tag !secret"));
        assert!(error("? [a]\n: b\n").contains("key must be a scalar"));
        assert!(error(&format!("{}1{}", "[".repeat(200), "]".repeat(200))).contains("128"));
        assert!(error("a: &x [*x]").contains("an alias inside"));
    }

    #[test]
    fn documents_are_divided_and_know_their_lines() {
        let roots = parse_all("a: &x 1\n---\n# nothing\n---\nb: 2\n---\n").unwrap();
        let lines: Vec<_> = roots.iter().map(|root| (root.at.line, root.is_null())).collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (4, (1, false), (5, false)), "{lines:?}");
        assert!(roots[1].is_null() && roots[3].is_null());
        assert!(parse_all("a: &x 1\n---\nb: *x\n").is_err());
        assert!(parse_all("").unwrap().is_empty());
    }

    #[test]
    fn an_empty_text_is_null() {
        assert!(parse("").unwrap().is_null());
        assert!(parse("# nothing\n").unwrap().is_null());
    }
}
