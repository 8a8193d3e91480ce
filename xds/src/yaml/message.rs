//! A tree read as a message through its descriptor: fields by either spelling, one-ofs, lists, maps.

use std::collections::HashMap;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Reflected,
};

use super::path::Path;
use super::suggest::nearest;
use super::tree::{Key, Node, Value};
use super::{Position, value, well_known};

/// Most problems reported of one document: the rest would only bury the first.
const MAX_PROBLEMS: usize = 100;

/// Something wrong with a node.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: Position,
    pub(super) path: String,
    pub(super) reason: String,
}

/// Reads `root` as a message, or reports everything that is wrong with it.
pub(super) fn read(
    root: &Node<'_>,
    descriptor: &MessageDescriptor,
) -> Result<DynamicMessage, Vec<Problem>> {
    let mut reader = Reader { path: Path::default(), problems: Vec::new() };
    if root.is_null() {
        return Ok(DynamicMessage::new(descriptor.clone()));
    }
    match reader.message(root, descriptor) {
        Some(message) if reader.problems.is_empty() => Ok(message),
        _ => Err(reader.problems),
    }
}

/// The state of one reading: where we are, and what was wrong so far.
///
/// Every method returns none after it has reported a problem, so that its siblings are still read.
pub(super) struct Reader {
    path: Path,
    problems: Vec<Problem>,
}

impl Reader {
    /// Reports a problem of the field being read.
    pub(super) fn refuse<T>(&mut self, at: Position, reason: impl Into<String>) -> Option<T> {
        if self.problems.len() < MAX_PROBLEMS {
            let path = self.path.text().to_owned();
            self.problems.push(Problem { at, path, reason: reason.into() });
        }
        None
    }

    /// Reads a node as a message of any type, the well-known ones in their own form.
    pub(super) fn message(
        &mut self,
        node: &Node<'_>,
        descriptor: &MessageDescriptor,
    ) -> Option<DynamicMessage> {
        if let Some(result) = well_known::read(self, node, descriptor) {
            return result;
        }
        let Value::Map(entries) = &node.value else {
            return self.refuse(
                node.at,
                format!("expected the fields of a {}, found {}", descriptor.name(), node.kind()),
            );
        };
        self.fields(entries.iter(), descriptor)
    }

    /// Reads the entries of a map as a message's fields.
    pub(super) fn fields<'t, 'a: 't>(
        &mut self,
        entries: impl Iterator<Item = &'t (Key<'a>, Node<'a>)>,
        descriptor: &MessageDescriptor,
    ) -> Option<DynamicMessage> {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut chosen: HashMap<String, String> = HashMap::new();
        for (key, node) in entries {
            let Some(field) = self.field(key, descriptor) else { continue };
            if node.is_null() && !takes_null(&field) {
                continue;
            }
            if let Some(first) = chosen.insert(choice(&field), field.name().to_owned()) {
                let reason = if first == field.name() {
                    format!("{first} is given twice, in both spellings")
                } else {
                    format!("only one of {first} and {} may be set", field.name())
                };
                let length = self.path.enter_field(field.name());
                self.refuse::<()>(key.at, reason);
                self.path.leave(length);
                continue;
            }
            let length = self.path.enter_field(field.name());
            if let Some(value) = self.field_value(node, &field) {
                message.set_field(&field, value);
            }
            self.path.leave(length);
        }
        Some(message)
    }

    fn field(&mut self, key: &Key<'_>, descriptor: &MessageDescriptor) -> Option<FieldDescriptor> {
        let name = key.text.as_ref();
        let found =
            descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        if found.is_none() {
            let mut reason = format!("{} has no such field", descriptor.full_name());
            let fields: Vec<FieldDescriptor> = descriptor.fields().collect();
            if let Some(near) = nearest(name, fields.iter().map(FieldDescriptor::name)) {
                reason.push_str(&format!("; did you mean {near}?"));
            } else {
                reason.push_str(", or it is not supported");
            }
            let length = self.path.enter_field(name);
            self.refuse::<()>(key.at, reason);
            self.path.leave(length);
        }
        found
    }

    fn field_value(&mut self, node: &Node<'_>, field: &FieldDescriptor) -> Option<Reflected> {
        if field.is_map() {
            self.map(node, field)
        } else if field.is_list() {
            self.list(node, &field.kind())
        } else {
            self.single(node, &field.kind())
        }
    }

    /// Reads a list of messages or scalars.
    fn list(&mut self, node: &Node<'_>, kind: &Kind) -> Option<Reflected> {
        let Value::List(items) = &node.value else {
            return self.refuse(node.at, format!("expected a list, found {}", node.kind()));
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let length = self.path.enter_item(index);
            if item.is_null() && !is_json_value(kind) {
                self.refuse::<()>(item.at, "a list's item may not be null");
            } else {
                values.extend(self.single(item, kind));
            }
            self.path.leave(length);
        }
        Some(Reflected::List(values))
    }

    fn map(&mut self, node: &Node<'_>, field: &FieldDescriptor) -> Option<Reflected> {
        let Value::Map(entries) = &node.value else {
            return self.refuse(node.at, format!("expected a map, found {}", node.kind()));
        };
        let Kind::Message(entry) = field.kind() else { return None };
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut values = HashMap::with_capacity(entries.len());
        for (key, item) in entries {
            let length = self.path.enter_key(&key.text);
            if let (Some(key), Some(value)) =
                (self.map_key(key, &key_kind), self.single(item, &value_kind))
            {
                values.insert(key, value);
            }
            self.path.leave(length);
        }
        Some(Reflected::Map(values))
    }

    fn map_key(&mut self, key: &Key<'_>, kind: &Kind) -> Option<MapKey> {
        // A key is text whatever its field's type: quotes around a number change nothing.
        let plain = *kind != Kind::String;
        match value::read(&key.text, plain, kind) {
            Ok(value) => value.into_map_key(),
            Err(reason) => self.refuse(key.at, reason),
        }
    }

    /// Reads one value that is neither list nor map.
    fn single(&mut self, node: &Node<'_>, kind: &Kind) -> Option<Reflected> {
        if let Kind::Message(descriptor) = kind {
            return self.message(node, descriptor).map(Reflected::Message);
        }
        self.scalar(node, kind)
    }

    /// Reads one number, string, boolean, enum value or byte string.
    pub(super) fn scalar(&mut self, node: &Node<'_>, kind: &Kind) -> Option<Reflected> {
        let Value::Scalar { text, plain } = &node.value else {
            let expected = value::expected(kind);
            return self.refuse(node.at, format!("expected {expected}, found {}", node.kind()));
        };
        match value::read(text, *plain, kind) {
            Ok(value) => Some(value),
            Err(reason) => self.refuse(node.at, reason),
        }
    }

    /// Reads `item` as the entry of this key or index, for values without a descriptor.
    pub(super) fn within<T>(
        &mut self,
        step: Step<'_>,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let length = match step {
            Step::Item(index) => self.path.enter_item(index),
            Step::Key(key) => self.path.enter_key(key),
            Step::Field(name) => self.path.enter_field(name),
        };
        let result = read(self);
        self.path.leave(length);
        result
    }
}

/// One step down the tree.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Item(usize),
    Key(&'a str),
    Field(&'a str),
}

/// What at most one field may claim: its one-of, or itself.
fn choice(field: &FieldDescriptor) -> String {
    match field.containing_oneof() {
        Some(oneof) => format!("oneof {}", oneof.name()),
        None => field.name().to_owned(),
    }
}

fn takes_null(field: &FieldDescriptor) -> bool {
    !field.is_list() && !field.is_map() && is_json_value(&field.kind())
}

fn is_json_value(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(message) if message.full_name() == "google.protobuf.Value")
}
