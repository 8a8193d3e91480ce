//! The query of an admin request.

use regex::Regex;

use super::reply::Reply;

/// Names and values in order, percent-decoded. A plus sign stays one: filters are regular expressions.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query without `?`.
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is there, with whatever value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The regular expression in `name`; a bad one is answered with `complaint` and what is wrong with it.
    pub(super) fn regex(&self, name: &str, complaint: &str) -> Result<Option<Regex>, Reply> {
        self.get(name)
            .map(|source| {
                Regex::new(source).map_err(|error| {
                    Reply::bad_request(format!("{complaint}: {}\n", last_line(&error.to_string())))
                })
            })
            .transpose()
    }

    /// All names and values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The last line of a regular expression's error says what is wrong; those before it draw where.
fn last_line(error: &str) -> &str {
    error.lines().last().unwrap_or(error)
}

fn decode(text: &str) -> String {
    let hex = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
        u8::from_str_radix(digits, 16).ok()
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2).and_then(hex)).flatten();
        bytes.push(escaped.unwrap_or(*first));
        rest = escaped.and_then(|_| after.get(2..)).unwrap_or(after);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_plus_signs_stay() {
        let parameters = Parameters::parse("filter=a%2B+b%&usedonly&x=1&x=2&%zz=%+1");
        assert_eq!(parameters.get("filter"), Some("a++b%"));
        assert!(parameters.has("usedonly"));
        assert_eq!(parameters.get("x"), Some("1"));
        assert_eq!(parameters.get("%zz"), Some("%+1"));
        assert_eq!(parameters.pairs().count(), 5);
        assert_eq!(Parameters::parse("").pairs().count(), 0);
    }

    #[test]
    fn a_bad_expression_is_answered_with_its_fault() {
        let reply = Parameters::parse("filter=[").regex("filter", "Invalid regex").unwrap_err();
        assert_eq!(reply.body(), "Invalid regex: error: unclosed character class\n");
    }
}
