//! RE2's syntax in terms of the `regex` crate's: where the two differ, an expression keeps RE2's meaning.
//!
//! Envoy matches with RE2. Both engines are linear in time and close in syntax, but `\d`, `\w`, `\s` and `\b` are
//! about ASCII in RE2, a brace or a bracket that begins nothing is a literal, and `\Q…\E` quotes.

use std::iter::Peekable;
use std::str::Chars;

/// Largest compiled program, in bytes.
const SIZE_LIMIT: usize = 4 << 20;

/// An expression that must match a whole value.
pub(super) fn whole(source: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::RegexBuilder::new(&format!("^(?:{})$", translate(source)?))
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| describe(&error))
}

/// An expression that is looked for within a text; the error is text for the operator.
pub fn substring(source: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(&translate(source)?)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| describe(&error))
}

fn describe(error: &regex::Error) -> String {
    format!("not a regular expression: {error}")
}

/// Spells `source` for the `regex` crate.
fn translate(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() + 8);
    let mut chars = source.chars().peekable();
    let mut depth = 0_usize;
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut chars, &mut out)?,
            '[' => class(&mut chars, &mut out)?,
            '{' if !begins_repetition(&chars) => out.push_str(r"\{"),
            '(' => {
                depth += 1;
                out.push(c);
            }
            ')' => {
                depth = depth.checked_sub(1).ok_or_else(|| format!("unexpected ): {source}"))?;
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    if depth > 0 { Err(format!("missing ): {source}")) } else { Ok(out) }
}

/// Whether what follows a brace makes it a repetition: `{2}`, `{2,}` or `{2,3}`.
fn begins_repetition(rest: &Peekable<Chars<'_>>) -> bool {
    let text: String = rest.clone().take_while(|c| *c != '}').take(12).collect();
    let closed = rest.clone().nth(text.chars().count()) == Some('}');
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    closed
        && match text.split_once(',') {
            Some((low, high)) => number(low) && (high.is_empty() || number(high)),
            None => number(&text),
        }
}

/// Translates what follows a backslash outside of a class.
fn escape(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match chars.next() {
        Some('Q') => quoted(chars, out),
        Some('E') => {}
        Some('b') => out.push_str(r"(?-u:\b)"),
        Some('B') => out.push_str(r"(?-u:\B)"),
        Some('C') => out.push_str(r"(?s-u:.)"),
        Some('A') => out.push_str(r"\A"),
        Some('z') => out.push_str(r"\z"),
        Some(c @ ('d' | 's' | 'w')) => {
            out.push('[');
            out.push_str(ascii_class(c));
            out.push(']');
        }
        Some(c @ ('D' | 'S' | 'W')) => {
            out.push_str("[^");
            out.push_str(ascii_class(c.to_ascii_lowercase()));
            out.push(']');
        }
        Some(c) => character(c, chars, out)?,
        None => return Err("a backslash at the end escapes nothing".into()),
    }
    Ok(())
}

/// The characters of a Perl class in RE2.
fn ascii_class(letter: char) -> &'static str {
    match letter {
        'd' => "0-9",
        's' => r"\t\n\f\r ",
        _ => "0-9A-Za-z_",
    }
}

/// Takes text as it stands, up to `\E` or the end.
fn quoted(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            return;
        }
        out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

/// Translates an escaped character, inside or outside of a class.
fn character(c: char, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match c {
        'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' => {
            out.push('\\');
            out.push(c);
        }
        'p' | 'P' => {
            out.push('\\');
            out.push(c);
            // A name in braces is no repetition.
            if chars.next_if_eq(&'{').is_some() {
                out.push('{');
                out.extend(chars.by_ref().take_while(|c| *c != '}'));
                out.push('}');
            }
        }
        '0'..='7' => octal(c, chars, out)?,
        _ if c.is_ascii_alphanumeric() || c == '_' => {
            return Err(format!("invalid escape sequence: \\{c}"));
        }
        _ => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
    }
    // \x{10FFFF}
    if c == 'x' && chars.next_if_eq(&'{').is_some() {
        out.push('{');
    }
    Ok(())
}

/// `\0`, and three octal digits; a single other digit would be a back reference, which RE2 has not.
fn octal(first: char, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let mut digits = String::from(first);
    while digits.len() < 3 {
        let Some(digit) = chars.next_if(|c| ('0'..='7').contains(c)) else { break };
        digits.push(digit);
    }
    match u32::from_str_radix(&digits, 8) {
        Ok(value) if first == '0' || digits.len() > 1 => {
            out.push_str(&format!("\\x{{{value:x}}}"));
            Ok(())
        }
        _ => Err(format!("invalid escape sequence: \\{digits}")),
    }
}

/// Translates a class, whose opening bracket has been read.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    // A bracket in the first place is a member.
    if chars.next_if_eq(&']').is_some() {
        out.push_str(r"\]");
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                // [:name:]
                out.extend(chars.by_ref().take_while(|c| *c != ']'));
                out.push(']');
            }
            // Nested classes and set operations exist in the `regex` crate only.
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '-' if chars.peek() == Some(&'-') => {
                out.push('-');
                chars.next();
                out.push_str(r"\-");
            }
            '\\' => class_escape(chars, out)?,
            _ => out.push(c),
        }
    }
    Err("missing ]".into())
}

fn class_escape(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match chars.next() {
        Some(c @ ('d' | 's' | 'w')) => out.push_str(ascii_class(c)),
        Some(c @ ('D' | 'S' | 'W')) => {
            out.push_str("[^");
            out.push_str(ascii_class(c.to_ascii_lowercase()));
            out.push(']');
        }
        Some(c) => character(c, chars, out)?,
        None => return Err("missing ]".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        whole(pattern)
            .unwrap_or_else(|error| panic!("{pattern}: {error}"))
            .is_match(value.as_bytes())
    }

    #[test]
    fn perl_classes_are_ascii() {
        assert!(matches(r"\d+", "123") && !matches(r"\d+", "٣"));
        assert!(matches(r"\w", "a") && !matches(r"\w", "é"));
        assert!(matches(r"[\d\-]+", "1-2") && !matches(r"[\d]", "٣"));
        assert!(matches(r"\D", "٣") && matches(r"[\D]", "٣") && !matches(r"[^\D]", "٣"));
        assert!(!matches(r"\s", "\u{b}") && matches(r"\s", "\t"));
        assert!(matches(r"a\b.*", "a é"));
    }

    #[test]
    fn a_dot_is_one_character_even_beyond_ascii() {
        assert!(matches("^.é$", "éé"));
        assert!(!matches(".", "\n") && matches("(?s).", "\n"));
        assert!(matches(r"\C\C", "é"));
        assert!(matches(r"\pN+", "1٣") && matches(r"\p{Greek}", "α") && matches(r"\PN", "a"));
    }

    #[test]
    fn what_begins_nothing_is_literal() {
        assert!(matches("/users/{id}", "/users/{id}"));
        assert!(matches("a{,2}", "a{,2}") && matches("a{2}", "aa") && matches("a{1,}", "aaa"));
        assert!(matches("[[a]", "[") && matches("[]a]", "]") && matches("[^]a]", "b"));
        assert!(matches("[a&&b]", "&") && matches("[+--]", ",") && matches("[~~]", "~"));
        assert!(matches("[[:alpha:]_]+", "a_b"));
        assert!(matches(r"\<\>\/\-\.", "<>/-."));
        assert!(matches(r"\Qa.b*\E+", "a.b**") && !matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"\x41\x{42}\103\0", "ABC\0"));
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in ["a)(b", "(a", "[a", r"(a)\1", "a\\", r"\Z", r"\_", "*", "(?=a)", r"\y"] {
            assert!(whole(pattern).is_err(), "{pattern}");
            assert!(substring(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn quoting_any_text_matches_that_text(text in r"[^\\]{0,40}") {
            let quoted = ["\\Q", &text, "\\E"].concat();
            prop_assert!(whole(&quoted).unwrap().is_match(text.as_bytes()));
        }

        #[test]
        fn translation_never_panics(pattern in r"[\PC\\\[\]{}()^-]{0,40}") {
            let _ = translate(&pattern).map(|text| regex::bytes::Regex::new(&text));
        }

        #[test]
        fn escaped_text_matches_itself(text in r"\PC{0,20}") {
            let escaped = regex::escape(&text);
            prop_assert!(whole(&escaped).unwrap().is_match(text.as_bytes()));
        }
    }
}
