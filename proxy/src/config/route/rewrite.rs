//! How the path and the host of a request change on its way (fields of Envoy's `RouteAction`).

use http::header::HeaderName;

use crate::config::format::Format;

/// A regular expression and its substitution (Envoy `RegexMatchAndSubstitute`, `\1` groups).
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    /// The expression; every match in the value is replaced.
    pub pattern: regex::Regex,
    /// Literals and capture groups in order.
    pub substitution: Vec<SubstitutionPiece>,
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.substitution == other.substitution
    }
}

/// A piece of a substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubstitutionPiece {
    /// Text as it stands.
    Literal(Box<str>),
    /// Capture group by number, 0 is the whole match.
    Group(usize),
}

/// How a forwarded path changes; the query is always kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum PathRewrite {
    /// Unchanged.
    #[default]
    None,
    /// `prefix_rewrite`: the matched prefix (or whole path) is replaced.
    Prefix(Box<str>),
    /// `regex_rewrite`
    Regex(RegexRewrite),
    /// `path_rewrite`: the whole path is replaced by this formatted text.
    Full(Format),
}

/// How the forwarded host changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum HostRewrite {
    /// Unchanged.
    #[default]
    None,
    /// `host_rewrite_literal`
    Literal(Box<str>),
    /// `auto_host_rewrite`: the chosen endpoint's hostname.
    Auto,
    /// `host_rewrite_header`: the value of this request header, if present.
    Header(HeaderName),
    /// `host_rewrite`: this formatted text.
    Format(Format),
    /// `host_rewrite_path_regex`: the path with this substitution applied.
    PathRegex(RegexRewrite),
}
