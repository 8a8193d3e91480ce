//! A distinguished name as text (RFC 2253), in the spelling OpenSSL and Envoy use.

use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::Any;
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

/// The most specific part first, parts joined by `,`: `CN=reviews,OU=shop,O=acme`.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for part in parts.into_iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        push_part(&mut text, part);
    }
    text
}

/// One relative name; several attributes of it are joined by `+`.
fn push_part(text: &mut String, part: &RelativeDistinguishedName<'_>) {
    for (position, attribute) in part.iter().enumerate() {
        if position > 0 {
            text.push('+');
        }
        push_attribute(text, attribute);
    }
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let known = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short);
    text.push_str(known.unwrap_or(&oid));
    text.push('=');
    match (known, attribute.as_str()) {
        (Some(_), Ok(value)) => push_escaped(text, value),
        _ => push_dumped(text, attribute.attr_value()),
    }
}

/// A value whose type or encoding is unknown: `#` and its DER in hex.
fn push_dumped(text: &mut String, value: &Any<'_>) {
    text.push('#');
    let header = [value.header.tag().0 as u8, u8::try_from(value.data.len()).unwrap_or(u8::MAX)];
    for byte in header.iter().chain(value.data) {
        push_hex(text, *byte);
    }
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (position, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'#' if position == 0 => text.push_str("\\#"),
            b' ' if position == 0 || position == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                text.push('\\');
                push_hex(text, other);
            }
        }
    }
}

fn push_hex(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{byte:02X}");
}

/// OpenSSL's short names of the attribute types met in practice.
const SHORT_NAMES: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];
