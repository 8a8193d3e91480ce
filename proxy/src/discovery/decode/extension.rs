//! Extensions: messages packed in `Any`, told apart by their type.

use std::borrow::Cow;

use prost::{Message, Name};
use prost_types::Any;
use xds::typed_struct;

use super::errors::{At, Result, refuse};
use crate::config::Invalid;

/// The packed message, if it is an `M`.
pub(super) fn unpack<M: Message + Name + Default>(any: &Any) -> Result<Option<M>> {
    if message_name(any) != M::full_name() {
        return Ok(None);
    }
    M::decode(any.value.as_slice())
        .map(Some)
        .map_err(|error| format!("these bytes are no {}: {error}", M::full_name()))
        .at("")
}

/// The message itself, if it is written out field by field in a `TypedStruct`; else `any`.
pub(super) fn carried(any: &Any) -> Result<Cow<'_, Any>> {
    if !typed_struct::is_typed_struct(any) {
        return Ok(Cow::Borrowed(any));
    }
    typed_struct::unpack(any).map(Cow::Owned).map_err(|errors| {
        let mut errors =
            errors.into_iter().map(|it| Invalid::new(it.path, it.reason).under("value"));
        errors.next().map_or_else(|| String::from("no such message").into(), Into::into)
    })
}

/// Refuses an extension of a type that this version does not have.
pub(super) fn unsupported<T>(any: &Any) -> Result<T> {
    match message_name(any) {
        "" => refuse("", "@type is missing: it names the message"),
        name => refuse("", format!("{name} is not supported here by this version")),
    }
}

/// Which message is packed.
pub(super) fn message_name(any: &Any) -> &str {
    any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name)
}
