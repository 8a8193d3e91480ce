//! The routes of one virtual host, found by path: exact paths by hash, prefixes by a radix tree, and regular
//! expressions under the literal text they begin with.

use std::sync::Arc;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::Extractor;

use super::candidates::{Candidates, Filed};
use super::matcher;
use crate::config::HashMap;
use crate::config::matcher::{Regex, RequestHead};
use crate::config::route::{PathMatch, Route};

/// Where each route of a virtual host can be found.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Filed>,
    prefixes: super::trie::Trie<Filed>,
    /// Routes that fold ASCII case, exact ones too, under lower-case keys.
    folded: super::trie::Trie<Filed>,
    connect: Vec<u32>,
}

impl Index {
    /// Files `routes` by their paths.
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let mut index = Self::default();
        for (route, number) in routes.iter().zip(0..) {
            index.file(&route.matcher.path, number);
        }
        let lists = index.exact.values_mut();
        let lists = lists.chain(index.prefixes.values_mut()).chain(index.folded.values_mut());
        for list in lists {
            list.split(routes);
        }
        index
    }

    fn file(&mut self, path: &PathMatch, number: u32) {
        match path {
            PathMatch::Exact { value, case_sensitive: true } => {
                self.exact.entry(value.clone()).or_default().push(number);
            }
            PathMatch::Prefix { value, case_sensitive: true }
            | PathMatch::SeparatedPrefix { value, case_sensitive: true } => {
                self.prefixes.entry(value.as_bytes()).push(number);
            }
            PathMatch::Exact { value, case_sensitive: false }
            | PathMatch::Prefix { value, case_sensitive: false }
            | PathMatch::SeparatedPrefix { value, case_sensitive: false } => {
                self.folded.entry(value.to_ascii_lowercase().as_bytes()).push(number);
            }
            PathMatch::Regex(regex) => {
                for prefix in literal_prefixes(regex) {
                    self.prefixes.entry(&prefix).push(number);
                }
            }
            PathMatch::Connect => self.connect.push(number),
        }
    }

    /// Numbers of the routes that could match, in configuration order. Each is still to be checked.
    pub(super) fn candidates<'t>(&'t self, head: &RequestHead<'_>, path: &str) -> Candidates<'t> {
        let mut candidates = Candidates::default();
        if !self.connect.is_empty() && matcher::is_connect(head) {
            candidates.add_list(&self.connect);
        }
        // A plain CONNECT has no path: no other route is for it.
        if head.path_and_query.is_empty() {
            return candidates;
        }
        if let Some(filed) = self.exact.get(path) {
            candidates.add(filed, head);
        }
        for filed in self.prefixes.prefixes_of(path.bytes()) {
            candidates.add(filed, head);
        }
        for filed in self.folded.prefixes_of(path.bytes().map(|byte| byte.to_ascii_lowercase())) {
            candidates.add(filed, head);
        }
        candidates
    }
}

/// Texts of which every match of `regex` begins with one; a single empty text if nothing is known.
fn literal_prefixes(regex: &Regex) -> Vec<Box<[u8]>> {
    let hir = ParserBuilder::new().utf8(false).build().parse(regex.compiled());
    // Few texts are enough: a class of characters ends them rather than multiplying them.
    let mut extractor = Extractor::new();
    extractor.limit_class(1).limit_total(16);
    let prefixes = hir.ok().map(|hir| extractor.extract(&hir));
    let mut literals: Vec<Box<[u8]>> = match prefixes.as_ref().and_then(|seq| seq.literals()) {
        Some(literals) => literals.iter().map(|literal| literal.as_bytes().into()).collect(),
        None => vec![Box::default()],
    };
    literals.sort_unstable();
    literals.dedup();
    literals
}

#[cfg(test)]
mod tests {
    use super::literal_prefixes;
    use crate::config::matcher::Regex;

    fn prefixes(source: &str) -> Vec<String> {
        let regex = Regex::new(source).unwrap();
        let found = literal_prefixes(&regex);
        found.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    #[test]
    fn a_regex_is_filed_under_what_it_must_begin_with() {
        assert_eq!(prefixes("/api/v[0-9]{5}/x"), ["/api/v"]);
        assert_eq!(prefixes("/(foo|bar)/.*"), ["/bar/", "/foo/"]);
        assert_eq!(prefixes("/a|/b"), ["/a", "/b"]);
        assert_eq!(prefixes("^/a?b"), ["/ab", "/b"]);
        assert_eq!(prefixes(r"/v1\.0/.+"), ["/v1.0/"]);
        assert_eq!(prefixes(".*foo"), [""]);
        assert_eq!(prefixes("(/a|.*)"), [""]);
        assert_eq!(prefixes(""), [""]);
    }
}
