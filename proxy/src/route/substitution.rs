//! Regular-expression substitution as RE2's `GlobalReplace` does it: every match is replaced.

use crate::config::route::{RegexRewrite, SubstitutionPiece};

impl RegexRewrite {
    /// `text` with every match replaced. Groups that took no part in the match are empty.
    pub fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for captures in self.pattern.captures_iter(text) {
            let Some(whole) = captures.get(0) else { continue };
            out.push_str(text.get(copied..whole.start()).unwrap_or_default());
            for piece in &self.substitution {
                match piece {
                    SubstitutionPiece::Literal(literal) => out.push_str(literal),
                    SubstitutionPiece::Group(number) => {
                        out.push_str(captures.get(*number).map_or("", |group| group.as_str()));
                    }
                }
            }
            copied = whole.end();
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use crate::config::route::{RegexRewrite, SubstitutionPiece};

    fn apply(pattern: &str, substitution: &[SubstitutionPiece], text: &str) -> String {
        let pattern = regex::Regex::new(pattern).unwrap();
        RegexRewrite { pattern, substitution: substitution.to_vec() }.apply(text)
    }

    fn literal(text: &str) -> SubstitutionPiece {
        SubstitutionPiece::Literal(text.into())
    }

    #[test]
    fn every_match_is_replaced() {
        assert_eq!(apply("one", &[literal("two")], "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        assert_eq!(apply("(?i)/xxx/", &[literal("/yyy/")], "/aaa/XxX/bbb"), "/aaa/yyy/bbb");
        assert_eq!(apply("a*", &[literal("X")], "baac"), "XbXcX");
        assert_eq!(apply("none", &[literal("x")], "/path"), "/path");
    }

    #[test]
    fn groups_are_by_number() {
        let swap = [
            SubstitutionPiece::Group(2),
            literal("/instance/"),
            SubstitutionPiece::Group(1),
            SubstitutionPiece::Group(0),
            SubstitutionPiece::Group(9),
        ];
        let pattern = "^/service/([^/]+)(/.*)$";
        assert_eq!(apply(pattern, &swap, "/service/foo/v1"), "/v1/instance/foo/service/foo/v1");
        assert_eq!(apply("(a)|(b)", &[SubstitutionPiece::Group(1)], "ab"), "a");
    }
}
