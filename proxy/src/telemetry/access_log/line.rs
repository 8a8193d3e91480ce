//! One log line, as text or as JSON, appended without allocating.
//!
//! Values come from the network. In text logs their control bytes become `?`, so that no value can start
//! a line of its own or speak to a terminal; JSON strings are escaped, and bytes that are not UTF-8
//! become U+FFFD.

use super::Event;
use crate::config::access_log::{JsonFormat, LogFormat};
use crate::config::format::{Format, Piece, write_json};

/// Appends the line to `out`; `scratch` is empty before and after.
pub(super) fn write(
    format: &LogFormat,
    facts: &Event<'_>,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    match format {
        LogFormat::Text { line, omit_empty } => text(line, facts, missing(*omit_empty), out),
        LogFormat::Json { object, omit_empty } => {
            let mut json = Json { facts, omit_empty: *omit_empty, scratch, out };
            if !json.value(object) {
                json.out.extend_from_slice(b"null");
            }
            out.push(b'\n');
        }
    }
}

/// What stands for an absent value inside a text.
fn missing(omit_empty: bool) -> &'static str {
    if omit_empty { "" } else { "-" }
}

fn text(line: &Format, facts: &Event<'_>, missing: &str, out: &mut Vec<u8>) {
    for piece in &line.pieces {
        let start = out.len();
        piece.render(facts, missing, out);
        if let (Piece::Operator(..), Some(value)) = (piece, out.get_mut(start..)) {
            value.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b'?');
        }
    }
}

/// A JSON value being written.
struct Json<'a> {
    facts: &'a Event<'a>,
    omit_empty: bool,
    scratch: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    /// Appends `format`'s value; false (and nothing written) if it is absent.
    fn value(&mut self, format: &JsonFormat) -> bool {
        match format {
            JsonFormat::Text(format) => return self.text(format),
            JsonFormat::Constant(value) => self.serialize(value),
            JsonFormat::Object(fields) => {
                self.out.push(b'{');
                let mut first = true;
                for (name, value) in fields {
                    first = !self.field(name, value, first) && first;
                }
                self.out.push(b'}');
            }
            JsonFormat::List(items) => {
                self.out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    if !self.value(item) {
                        self.out.extend_from_slice(b"null");
                    }
                }
                self.out.push(b']');
            }
        }
        true
    }

    /// Appends `"name":value`, after a comma unless it is the `first`; false if it was left out.
    fn field(&mut self, name: &str, value: &JsonFormat, first: bool) -> bool {
        let start = self.out.len();
        if !first {
            self.out.push(b',');
        }
        self.serialize(name);
        self.out.push(b':');
        let present = self.value(value);
        match (present, self.omit_empty) {
            (true, _) => {}
            (false, true) => self.out.truncate(start),
            (false, false) => self.out.extend_from_slice(b"null"),
        }
        present || !self.omit_empty
    }

    /// A single operator keeps its type and may be absent; anything else is a string.
    fn text(&mut self, format: &Format) -> bool {
        self.scratch.clear();
        if let [Piece::Operator(operator, limit)] = format.pieces.as_slice() {
            if operator.is_structured() {
                let value = operator.json(self.facts, *limit);
                value.iter().for_each(|value| write_json(value, self.out));
                return value.is_some();
            }
            if !operator.write(self.facts, self.scratch) {
                self.scratch.clear();
                return false;
            }
            if let Some(limit) = limit {
                self.scratch.truncate(*limit);
            }
            if operator.is_number() && self.scratch.iter().all(u8::is_ascii_digit) {
                self.out.append(self.scratch);
                return true;
            }
        } else {
            for piece in &format.pieces {
                piece.render(self.facts, missing(self.omit_empty), self.scratch);
            }
        }
        let text = std::mem::take(self.scratch);
        self.serialize(&String::from_utf8_lossy(&text));
        *self.scratch = text;
        self.scratch.clear();
        true
    }

    fn serialize<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        // Neither strings nor constants read from JSON can fail to be written to memory.
        let _ = serde_json::to_writer(&mut *self.out, value);
    }
}
