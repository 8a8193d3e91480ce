//! Lists, maps, structs and one-ofs: how serde walks into a value.

use std::slice;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use xds::yaml::tree::{Key, Node, Value};

use super::{Error, Path, Reader};

/// A list's items.
pub(super) struct Items<'r, 'n> {
    list: Reader<'r, 'n>,
    items: std::iter::Enumerate<slice::Iter<'r, Node<'n>>>,
}

impl<'r, 'n> Items<'r, 'n> {
    pub(super) fn new(list: Reader<'r, 'n>, items: &'r [Node<'n>]) -> Self {
        Self { list, items: items.iter().enumerate() }
    }
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let path = Path::Item(self.list.path, index);
        let read = seed.deserialize(self.list.below(item, &path));
        read.map(Some).map_err(|error| error.placed(&path))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map, or of a struct with these fields.
pub(super) struct Entries<'r, 'n> {
    map: Reader<'r, 'n>,
    entries: slice::Iter<'r, (Key<'n>, Node<'n>)>,
    fields: Option<&'static [&'static str]>,
    value: Option<(&'r str, &'r Node<'n>)>,
}

impl<'r, 'n> Entries<'r, 'n> {
    pub(super) fn new(
        map: Reader<'r, 'n>,
        entries: &'r [(Key<'n>, Node<'n>)],
        fields: Option<&'static [&'static str]>,
    ) -> Self {
        Self { map, entries: entries.iter(), fields, value: None }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        for (key, value) in self.entries.by_ref() {
            let name: &str = &key.text;
            if self.map.skip.contains(&name) {
                continue;
            }
            let known = match self.fields {
                None => name,
                Some(fields) => match field(name, fields) {
                    Some(field) if !value.is_null() => field,
                    Some(_) => continue,
                    None => {
                        self.map.note_unknown(name, fields);
                        continue;
                    }
                },
            };
            self.value = Some((name, value));
            return seed.deserialize(KeyReader(known)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (name, node) =
            self.value.take().ok_or_else(|| Error::new("a value without its key"))?;
        let path = Path::Field(self.map.path, name);
        seed.deserialize(self.map.below(node, &path)).map_err(|error| error.placed(&path))
    }
}

/// A map's key: text, or a number for maps by number.
struct KeyReader<'k>(&'k str);

impl<'de> de::Deserializer<'de> for KeyReader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.0.parse().map_err(|_| {
            Error::new(format!("Invalid value: {:?}: keys here are numbers", self.0))
        })?;
        visitor.visit_u32(number)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The field that is meant by `name`, in lowerCamelCase or snake_case.
fn field(name: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == name);
    exact.or_else(|| fields.iter().find(|field| is_snake_of(name, field))).copied()
}

fn is_snake_of(snake: &str, camel: &str) -> bool {
    snake.contains('_')
        && snake
            .bytes()
            .filter(|b| *b != b'_')
            .map(|b| b.to_ascii_lowercase())
            .eq(camel.bytes().map(|b| b.to_ascii_lowercase()))
}

/// A chosen variant, with its value if it was a map's key.
pub(super) struct OneOf<'r, 'n> {
    reader: Reader<'r, 'n>,
    variant: &'static str,
    value: Option<(&'r str, &'r Node<'n>)>,
}

impl<'r, 'n> OneOf<'r, 'n> {
    pub(super) fn choose(
        reader: Reader<'r, 'n>,
        variants: &'static [&'static str],
    ) -> Result<Self, Error> {
        match &reader.node.value {
            Value::Scalar { text, .. } => {
                let named = variants.iter().find(|variant| **variant == text);
                let variant = named.copied().ok_or_else(|| unsupported(text, variants))?;
                Ok(Self { reader, variant, value: None })
            }
            Value::Map(entries) => {
                let mut chosen = None;
                for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                    let Some(variant) = field(&key.text, variants) else {
                        reader.note_unknown(&key.text, variants);
                        continue;
                    };
                    if chosen.replace((variant, (&*key.text, value))).is_some() {
                        return Err(exactly_one(variants));
                    }
                }
                match chosen {
                    Some((variant, value)) => Ok(Self { reader, variant, value: Some(value) }),
                    // The variant without a name is for a one-of that may be left open.
                    None if variants.contains(&"") => Ok(Self { reader, variant: "", value: None }),
                    None => Err(exactly_one(variants)),
                }
            }
            Value::List(_) => Err(reader.must_be("object")),
        }
    }
}

fn unsupported(text: &str, variants: &[&str]) -> Error {
    let supported: Vec<_> = variants.iter().map(|variant| format!("{variant:?}")).collect();
    Error::new(format!("Unsupported value: {text:?}: supported values: {}", supported.join(", ")))
}

fn exactly_one(variants: &[&str]) -> Error {
    let named: Vec<_> = variants.iter().copied().filter(|variant| !variant.is_empty()).collect();
    Error::new(format!("Invalid value: exactly one of {} must be set", named.join(", ")))
}

impl<'de, 'r, 'n> de::EnumAccess<'de> for OneOf<'r, 'n> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for OneOf<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let (name, node) = self.value.ok_or_else(|| self.reader.must_be("object"))?;
        let path = Path::Field(self.reader.path, name);
        seed.deserialize(self.reader.below(node, &path)).map_err(|error| error.placed(&path))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(self.reader.must_be("object"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(self.reader.must_be("object"))
    }
}
