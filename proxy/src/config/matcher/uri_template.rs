//! Forms of paths (Envoy `path.match.uri_template.v3`): `/shop/*/items`, `/files/{path=**}.jpg`.

use super::Regex;

/// What may stand in a segment: RFC 3986, "pchar".
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@*=]";
/// Most variables of one form, and the longest of their names.
const MOST_VARIABLES: usize = 5;
const LONGEST_NAME: usize = 16;

/// A form of paths.
#[derive(Debug, Clone, PartialEq)]
pub struct UriTemplate(Regex);

impl UriTemplate {
    /// Compiles `template`; the error is text for the operator.
    ///
    /// # Errors
    /// When Envoy does not take it for a template, and for a `*` within a literal.
    pub fn new(template: &str) -> Result<Self, String> {
        let segments = template.strip_prefix('/').ok_or("must begin with a slash")?;
        let mut parser = Parser::default();
        parser.form(segments)?;
        Regex::new(&parser.regex).map(Self)
    }

    /// Whether `path`, without query, has this form.
    pub fn is_match(&self, path: &str) -> bool {
        self.0.is_match(path.as_bytes())
    }
}

#[derive(Default)]
struct Parser<'a> {
    regex: String,
    variables: Vec<&'a str>,
    /// Whether `**` was there: no other glob may follow.
    is_open: bool,
}

impl<'a> Parser<'a> {
    /// Everything after the first slash.
    fn form(&mut self, mut rest: &'a str) -> Result<(), String> {
        self.regex.push('/');
        while !rest.is_empty() {
            rest = match rest.as_bytes().first() {
                Some(b'*') => self.glob(rest)?,
                Some(b'{') => self.variable(rest)?,
                _ => self.literal(rest)?,
            };
            match rest.strip_prefix('/') {
                Some(next) => {
                    self.regex.push('/');
                    rest = next;
                }
                None if rest.is_empty() => {}
                // What follows a glob or a variable is the end of the path.
                None if self.literal(rest)?.is_empty() => return Ok(()),
                None => return Err(format!("nothing may follow the segment of {rest:?}")),
            }
        }
        Ok(())
    }

    fn glob(&mut self, rest: &'a str) -> Result<&'a str, String> {
        if self.is_open {
            return Err("nothing that varies may follow a `**`".into());
        }
        self.regex.push_str(SEGMENT);
        if let Some(rest) = rest.strip_prefix("**") {
            self.is_open = true;
            // Slashes, too.
            self.regex.pop();
            self.regex.push_str("/]*");
            return Ok(rest);
        }
        self.regex.push('+');
        Ok(rest.strip_prefix('*').unwrap_or(rest))
    }

    /// `{name}` or `{name=segments}`
    fn variable(&mut self, rest: &'a str) -> Result<&'a str, String> {
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (inside, rest) = inside.ok_or("a `{` has no `}`")?;
        let (name, form) = inside.split_once('=').map_or((inside, None), |(a, b)| (a, Some(b)));
        self.name(name)?;
        let Some(form) = form else { return self.glob("*").map(|_| rest) };
        for (index, segment) in form.split('/').enumerate() {
            if index > 0 {
                self.regex.push('/');
            }
            let left = match segment.starts_with('*') {
                true => self.glob(segment)?,
                false => self.literal(segment)?,
            };
            if !left.is_empty() {
                return Err(format!("{segment:?} is no form of a segment"));
            }
        }
        Ok(rest)
    }

    fn name(&mut self, name: &'a str) -> Result<(), String> {
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !begins_well || !is_word || name.len() > LONGEST_NAME {
            return Err(format!(
                "{name:?} is no name of a variable: a letter, and up to 15 letters, digits and underscores"
            ));
        }
        if self.variables.contains(&name) {
            return Err(format!("there are two variables {name:?}"));
        }
        self.variables.push(name);
        if self.variables.len() > MOST_VARIABLES {
            return Err(format!("there may be at most {MOST_VARIABLES} variables"));
        }
        Ok(())
    }

    /// Takes a literal up to the next slash.
    fn literal(&mut self, rest: &'a str) -> Result<&'a str, String> {
        let end = rest.find('/').unwrap_or(rest.len());
        let (literal, rest) = rest.split_at(end);
        if literal.contains('*') {
            return Err(format!("{literal:?}: a `*` stands for a whole segment"));
        }
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c);
        if literal.is_empty() || !literal.chars().all(is_good) {
            return Err(format!("{literal:?} is no segment of a path"));
        }
        self.regex.push_str(&regex::escape(literal));
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_has_its_paths_and_no_others() {
        // As Envoy 1.40 has answered.
        for (template, good, bad) in [
            (
                "/a/*",
                &["/a/b", "/a/.jpg", "/a/b;c", "/a/%7a", "/a/="][..],
                &["/a/", "/a", "/a/b/c"][..],
            ),
            ("/**/z", &["/a/z", "/x/y/z", "//z"], &["/z", "/a/q"]),
            ("/a/{p=*}.jpg", &["/a/q.jpg"], &["/a/.jpg", "/a/q.jpgx", "/a/qxjpg"]),
            ("/a/**", &["/a/", "/a/b", "/a/b/c"], &["/a", "/b"]),
            ("/", &["/"], &["/a"]),
            ("/**", &["/", "/x//"], &["/x/[", "/x/a|b", "/x/\""]),
            ("/a/*b", &["/a/xb", "/a/*b", "/a/xyb"], &["/a/b", "/a/x"]),
            ("/p.q", &["/p.q"], &["/pxq"]),
            ("/a/", &["/a/"], &["/a"]),
            ("/{x}/{y=b/*}", &["/a/b/c"], &["/a/c/b", "/a/b"]),
            ("/~!$&'()+,;:@", &["/~!$&'()+,;:@"], &["/~"]),
        ] {
            let form = UriTemplate::new(template).unwrap();
            for path in good {
                assert!(form.is_match(path), "{template} {path}");
            }
            for path in bad {
                assert!(!form.is_match(path), "{template} {path}");
            }
        }
    }

    #[test]
    fn what_envoy_does_not_take_is_refused() {
        for template in [
            "",
            "a",
            "/**/*",
            "/**/**",
            "/{x}{y}",
            "/{x}/{x}",
            "/{1x}",
            "/{x-y}",
            "/a//b",
            "//",
            "/{x=***}",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
            "/a b",
            "/a?b",
            "/a|b",
            "/é",
            "/{x",
            "/x}",
            "/{}",
            "/a[b]",
            "/{=*}",
            "/{x=}",
            "/a#",
            "/{aaaaaaaaaaaaaaaaa}",
            "/*.jpg/x",
        ] {
            assert!(UriTemplate::new(template).is_err(), "{template}");
        }
        for template in ["/a*", "/a/b*", "/***"] {
            assert!(UriTemplate::new(template).is_err(), "{template}");
        }
    }

    proptest! {
        #[test]
        fn no_template_is_too_strange(template in "/[a-z*{}=/.]{0,30}", path in "/[ -~]{0,30}") {
            if let Ok(form) = UriTemplate::new(&template) {
                let _ = form.is_match(&path);
            }
        }
    }
}
