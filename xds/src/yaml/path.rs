//! Field paths: written while a tree is read, and followed back to a line and column afterwards.

use super::Position;
use super::tree::{Key, Node, Value};

/// The path of the field that is being read, for example `clusters[0].load_assignment`.
#[derive(Debug, Default)]
pub(super) struct Path(String);

impl Path {
    /// The path as text.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Steps into a field; the length goes to [`Path::leave`].
    pub(super) fn enter_field(&mut self, name: &str) -> usize {
        let length = self.0.len();
        if length > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        length
    }

    /// Steps into a list's item.
    pub(super) fn enter_item(&mut self, index: usize) -> usize {
        let length = self.0.len();
        self.0.push_str(&format!("[{index}]"));
        length
    }

    /// Steps into a map's entry.
    pub(super) fn enter_key(&mut self, key: &str) -> usize {
        let length = self.0.len();
        self.0.push_str(&format!("[{key:?}]"));
        length
    }

    /// Goes back to where the path had this length.
    pub(super) fn leave(&mut self, length: usize) {
        self.0.truncate(length);
    }
}

/// Where the value at `path` starts, or its nearest ancestor, and what is left of the path there: nothing
/// if the value exists.
///
/// Names match in snake_case and lowerCamelCase. A map's key may be written `["key"]`, `[key]` or `.key`.
pub fn locate<'p>(root: &Node<'_>, path: &'p str) -> (Position, &'p str) {
    let mut node = root;
    let mut at = root.at;
    let mut rest = path;
    while !rest.is_empty() {
        let step = match &node.value {
            Value::Scalar { .. } => None,
            Value::List(items) => list_item(items, rest),
            Value::Map(entries) => map_entry(entries, rest),
        };
        let Some((child, child_at, remaining)) = step else { break };
        (node, at, rest) = (child, child_at, remaining);
    }
    (at, rest)
}

type Step<'t, 'a, 'p> = Option<(&'t Node<'a>, Position, &'p str)>;

fn list_item<'t, 'a, 'p>(items: &'t [Node<'a>], path: &'p str) -> Step<'t, 'a, 'p> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    let item = items.get(index.parse::<usize>().ok()?)?;
    Some((item, item.at, rest))
}

/// Takes the longest key that the path goes on with, as keys may hold dots.
fn map_entry<'t, 'a, 'p>(entries: &'t [(Key<'a>, Node<'a>)], path: &'p str) -> Step<'t, 'a, 'p> {
    let (key, value, rest) = entries
        .iter()
        .filter_map(|(key, value)| Some((key, value, after_key(&key.text, path)?)))
        .min_by_key(|(_, _, rest)| rest.len())?;
    // A scalar stands on its key's line, where its own column says more; a block starts below.
    let at = if matches!(value.value, Value::Scalar { .. }) { value.at } else { key.at };
    Some((value, at, rest))
}

fn after_key<'p>(key: &str, path: &'p str) -> Option<&'p str> {
    if let Some(inside) = path.strip_prefix('[') {
        return inside
            .strip_prefix(format!("{key:?}").as_str())
            .or_else(|| inside.strip_prefix(key))?
            .strip_prefix(']');
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let rest = path.strip_prefix(key).or_else(|| path.strip_prefix(snake_case(key).as_str()))?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
}

fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn a_path_leads_to_its_place_or_its_nearest_ancestor() {
        let text = "\
clusters:
  - name: a
    typedExtensionProtocolOptions:
      envoy.http.Options:
        auto: {}
  - name: b
    connect_timeout: 1x
";
        let root = tree::parse(text).unwrap();
        let at = |path: &str| locate(&root, path).0.to_string();
        assert_eq!(at("clusters[1].connect_timeout"), "7:22");
        assert_eq!(at("clusters[1].lb_policy"), "6:5");
        assert_eq!(at("clusters[0].typed_extension_protocol_options"), "3:5");
        let options = "clusters[0].typed_extension_protocol_options";
        for path in [
            "[\"envoy.http.Options\"].auto",
            "[envoy.http.Options].auto",
            ".envoy.http.Options.auto",
        ] {
            assert_eq!(at(&format!("{options}{path}")), "5:9", "{path}");
        }
        assert_eq!(at("clusters[7]"), "1:1");
        assert_eq!(locate(&root, "clusters[7].name").1, "[7].name");
        assert_eq!(locate(&root, "clusters[1].name").1, "");
        assert_eq!(at("admin.address"), "1:1");
        assert_eq!(at(""), "1:1");
    }

    #[test]
    fn a_key_is_no_prefix_of_another() {
        let root = tree::parse("name: x\nname_suffix: y\n").unwrap();
        assert_eq!(locate(&root, "name_suffix").0.line, 2);
        assert_eq!(locate(&root, "name").0.line, 1);
    }
}
