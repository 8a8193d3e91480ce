//! Regular expressions with a substitution, as in `regex_rewrite`.

use xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::errors::{At, Result, required};
use super::matcher::regex_source;
use crate::config::matcher::re2;
use crate::config::route::{RegexRewrite, SubstitutionPiece};

/// A pattern and what each of its matches becomes.
pub(super) fn regex_rewrite(proto: &RegexMatchAndSubstitute) -> Result<RegexRewrite> {
    let RegexMatchAndSubstitute { pattern, substitution } = proto;
    let source = regex_source(required("pattern", pattern)?).at("pattern")?;
    let pattern = re2::substring(source).at("pattern.regex")?;
    let groups = pattern.captures_len() - 1;
    let substitution = pieces(substitution, groups).at("substitution")?;
    Ok(RegexRewrite { pattern, substitution })
}

/// Reads `\0` to `\9` and `\\`.
fn pieces(text: &str, groups: usize) -> std::result::Result<Vec<SubstitutionPiece>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            literal.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => literal.push('\\'),
            Some(c @ '0'..='9') => {
                let group = usize::from(c as u8 - b'0');
                if group > groups {
                    return Err(format!("\\{group} is no group: the pattern has {groups}"));
                }
                if !literal.is_empty() {
                    let before = std::mem::take(&mut literal).into_boxed_str();
                    pieces.push(SubstitutionPiece::Literal(before));
                }
                pieces.push(SubstitutionPiece::Group(group));
            }
            _ => return Err("a backslash stands before a digit or another backslash only".into()),
        }
    }
    if !literal.is_empty() {
        pieces.push(SubstitutionPiece::Literal(literal.into_boxed_str()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutions_are_literals_and_groups() {
        let literal = |text: &str| SubstitutionPiece::Literal(text.into());
        assert_eq!(
            pieces(r"/a\1\\\0", 1).unwrap(),
            [
                literal("/a"),
                SubstitutionPiece::Group(1),
                literal("\\"),
                SubstitutionPiece::Group(0)
            ]
        );
        assert!(pieces(r"\2", 1).is_err());
        assert!(pieces(r"\x", 1).is_err());
        assert!(pieces("a\\", 1).is_err());
    }
}
