//! Headers to add and to remove.

use http::header::HeaderName;
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::config::core::v3::{HeaderValue, HeaderValueOption};

use super::errors::{At, Result, both, each, refuse, required};
use super::value::{enumeration, header_name};
use crate::config::format::Format;
use crate::config::header::{AppendAction, HeaderMutations, HeaderText, HeaderToAdd};

/// As many headers one place may add.
const MOST_ADDED: usize = 1000;

/// The changes in `{side}_headers_to_add` and `{side}_headers_to_remove`; `side` is `request` or `response`.
pub(super) fn mutations(
    side: &str,
    add: &[HeaderValueOption],
    remove: &[String],
) -> Result<HeaderMutations> {
    let field = format!("{side}_headers_to_add");
    if add.len() > MOST_ADDED {
        return refuse(&field, format!("must be at most {MOST_ADDED}"));
    }
    let add = each(&field, add, to_add);
    let remove = each(&format!("{side}_headers_to_remove"), remove, |name| removed(name));
    let (add, remove) = both(add, remove)?;
    Ok(HeaderMutations { add, remove })
}

/// A header to add.
pub(super) fn to_add(proto: &HeaderValueOption) -> Result<HeaderToAdd> {
    let HeaderValueOption { header, append, append_action, keep_empty_value } = proto;
    let (key, value) = key_and_value(required("header", header)?).at("header")?;
    let name = added(key).at("header.key")?;
    let action = match (append, enumeration("append_action", *append_action)?) {
        (None | Some(true), HeaderAppendAction::AppendIfExistsOrAdd) => {
            AppendAction::AppendIfExistsOrAdd
        }
        (None, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd)
        | (Some(false), HeaderAppendAction::AppendIfExistsOrAdd) => {
            AppendAction::OverwriteIfExistsOrAdd
        }
        (None, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        (Some(_), _) => return refuse("append", "cannot be set together with append_action"),
    };
    if value.bytes().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
        return refuse("header.value", "must not hold line breaks or zero bytes");
    }
    Ok(HeaderToAdd {
        name,
        value: text(value).at("header.value")?,
        action,
        keep_empty: *keep_empty_value,
    })
}

/// What a header is set to.
pub(super) fn text(value: &str) -> Result<HeaderText> {
    match HeaderText::new(Format::parse(value)?) {
        Ok(text) => Ok(text),
        Err(_) => refuse("", format!("{value:?} cannot be sent as a header value")),
    }
}

/// A header's name and value.
pub(super) fn key_and_value(proto: &HeaderValue) -> Result<(&str, &str)> {
    let HeaderValue { key, value, raw_value } = proto;
    if !raw_value.is_empty() {
        return refuse("raw_value", "not supported by this version: use value");
    }
    Ok((key, value))
}

/// The name of a header to add.
pub(super) fn added(name: &str) -> Result<HeaderName> {
    if is_fixed(name) {
        return refuse("", ":-prefixed and host headers may not be modified");
    }
    header_name(name)
}

/// The name of a header to remove.
pub(super) fn removed(name: &str) -> Result<HeaderName> {
    if is_fixed(name) {
        return refuse("", ":-prefixed and host headers may not be removed");
    }
    header_name(name)
}

fn is_fixed(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}
