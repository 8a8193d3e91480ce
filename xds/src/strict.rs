//! Checks bytes against the subset: whatever decoding would silently drop is named with its path.

use std::fmt;

use prost::Name;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};
use prost_types::Any;

use crate::{DESCRIPTOR_POOL, typed_struct};

/// Something in a message that the subset does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unsupported {
    /// The field's path from the checked message; empty for the message itself.
    pub path: String,
    /// What was found there.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

/// Most `Any` messages within one another: each level costs a few bytes, and stack to walk.
const MAX_NESTED: usize = 32;

/// Checks a packed message and all it holds, also inside nested `Any` messages.
///
/// # Errors
/// Every unknown field, enum value and message type, and bytes that do not decode; never empty.
pub fn check(any: &Any) -> Result<(), Vec<Unsupported>> {
    let mut walker = Walker::default();
    walker.packed(&any.type_url, &any.value, "");
    walker.finish()
}

/// Checks the bytes of a message of type `M`, as [`check`] does.
///
/// # Errors
/// As [`check`].
pub fn check_bytes<M: Name>(bytes: &[u8]) -> Result<(), Vec<Unsupported>> {
    let mut walker = Walker::default();
    walker.packed(&M::type_url(), bytes, "");
    walker.finish()
}

#[derive(Default)]
struct Walker {
    found: Vec<Unsupported>,
    nested: usize,
}

impl Walker {
    fn finish(self) -> Result<(), Vec<Unsupported>> {
        if self.found.is_empty() { Ok(()) } else { Err(self.found) }
    }

    fn refuse(&mut self, path: &str, reason: String) {
        self.found.push(Unsupported { path: path.to_owned(), reason });
    }

    fn packed(&mut self, type_url: &str, bytes: &[u8], path: &str) {
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        let Some(descriptor) = DESCRIPTOR_POOL.get_message_by_name(name) else {
            let reason = format!("unknown type {type_url:?}: this extension is not supported");
            return self.refuse(path, reason);
        };
        if self.nested == MAX_NESTED {
            return self.refuse(path, format!("more than {MAX_NESTED} messages in one another"));
        }
        self.nested += 1;
        self.encoded(descriptor, bytes, path);
        let any = Any { type_url: type_url.to_owned(), value: Vec::new() };
        if typed_struct::is_typed_struct(&any) {
            self.carried(&Any { value: bytes.to_vec(), ..any }, path);
        }
        self.nested -= 1;
    }

    /// Checks what a message carries that is written out field by field.
    fn carried(&mut self, any: &Any, path: &str) {
        match typed_struct::unpack(any) {
            Ok(any) => self.packed(&any.type_url, &any.value, path),
            Err(errors) => {
                for error in errors {
                    let dot = if error.path.is_empty() { "" } else { "." };
                    self.refuse(&format!("{path}.value{dot}{}", error.path), error.reason);
                }
            }
        }
    }

    fn encoded(&mut self, descriptor: MessageDescriptor, bytes: &[u8], path: &str) {
        let name = descriptor.full_name().to_owned();
        match DynamicMessage::decode(descriptor, bytes) {
            Ok(message) => self.message(&message, path),
            Err(error) => self.refuse(path, format!("these bytes are no {name}: {error}")),
        }
    }

    fn message(&mut self, message: &DynamicMessage, path: &str) {
        let descriptor = message.descriptor();
        for field in message.unknown_fields() {
            let (number, name) = (field.number(), descriptor.full_name());
            self.refuse(path, format!("field number {number} of {name} is not supported"));
        }
        if descriptor.full_name() == Any::full_name() {
            if let Ok(any) = message.transcode_to::<Any>() {
                self.packed(&any.type_url, &any.value, path);
            }
            return;
        }
        for (field, value) in message.fields() {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{}", field.name());
            match value {
                Value::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.single(item, &field.kind(), &format!("{path}[{index}]"));
                    }
                }
                Value::Map(entries) => {
                    let Kind::Message(entry) = field.kind() else { continue };
                    let kind = entry.map_entry_value_field().kind();
                    for (key, item) in entries {
                        self.single(item, &kind, &format!("{path}[{}]", key_text(key)));
                    }
                }
                _ => self.single(value, &field.kind(), &path),
            }
        }
    }

    fn single(&mut self, value: &Value, kind: &Kind, path: &str) {
        match (value, kind) {
            (Value::Message(message), _) => self.message(message, path),
            (Value::EnumNumber(number), Kind::Enum(known))
                if known.get_value(*number).is_none() =>
            {
                let reason = format!("value {number} of {} is not supported", known.full_name());
                self.refuse(path, reason);
            }
            _ => {}
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => format!("{key:?}"),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;

    /// Appends field `number` with the integer 1, as a newer sender would.
    fn with_field(message: &impl Message, number: u32) -> Vec<u8> {
        let mut bytes = message.encode_to_vec();
        prost::encoding::uint32::encode(number, &1, &mut bytes);
        bytes
    }

    fn texts(any: &Any) -> Vec<String> {
        check(any).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_message_of_the_subset_passes() {
        let cluster = Cluster { name: "a".into(), ..Cluster::default() };
        assert_eq!(check(&Any::from_msg(&cluster).unwrap()), Ok(()));
    }

    #[test]
    fn unknown_fields_are_found_at_any_depth() {
        let options = Any {
            type_url: format!("type.googleapis.com/{}", Cluster::full_name()),
            value: with_field(&Cluster::default(), 4001),
        };
        let cluster = Cluster {
            typed_extension_protocol_options: [("x.y".to_owned(), options)].into(),
            ..Cluster::default()
        };
        let any = Any { type_url: Cluster::type_url(), value: with_field(&cluster, 4002) };
        assert_eq!(
            texts(&any),
            [
                "field number 4002 of envoy.config.cluster.v3.Cluster is not supported",
                "typed_extension_protocol_options[\"x.y\"]: field number 4001 of \
                 envoy.config.cluster.v3.Cluster is not supported",
            ]
        );
    }

    #[test]
    fn unknown_types_values_and_broken_bytes_are_found() {
        let lua = Any { type_url: "type.googleapis.com/x.Lua".into(), value: vec![] };
        assert!(texts(&lua)[0].starts_with("unknown type \"type.googleapis.com/x.Lua\""));

        let cluster = Cluster { lb_policy: 99, ..Cluster::default() };
        assert_eq!(
            texts(&Any::from_msg(&cluster).unwrap()),
            ["lb_policy: value 99 of envoy.config.cluster.v3.Cluster.LbPolicy is not supported"]
        );

        let mut nested = Any::from_msg(&Cluster::default()).unwrap();
        for _ in 0..100 {
            nested = Any::from_msg(&nested).unwrap();
        }
        assert!(texts(&nested)[0].contains("more than 32 messages"));

        assert!(check_bytes::<Cluster>(&with_field(&Cluster::default(), 4001)).is_err());
        assert_eq!(check_bytes::<Cluster>(&[]), Ok(()));

        let broken = Any { type_url: Cluster::type_url(), value: vec![0x0a, 0x7f] };
        assert!(
            texts(&broken)[0].starts_with("these bytes are no envoy.config.cluster.v3.Cluster")
        );
    }
}
