//! A radix tree that finds every key which is a prefix of a byte sequence, shortest first.

/// Keys are byte strings. Nodes live in one vector, so neither building nor dropping recurses.
#[derive(Debug)]
pub(super) struct Trie<V> {
    /// The root is the first node; it is always there.
    nodes: Vec<Node<V>>,
}

#[derive(Debug)]
struct Node<V> {
    /// The bytes on the edge to this node, without the first, which the parent holds.
    label: Box<[u8]>,
    /// First byte of the edge and the child's place in `nodes`, ordered by byte.
    children: Vec<(u8, usize)>,
    value: Option<V>,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { nodes: vec![Node::leaf(&[])] }
    }
}

impl<V> Node<V> {
    fn leaf(label: &[u8]) -> Self {
        Self { label: label.into(), children: Vec::new(), value: None }
    }
}

impl<V: Default> Trie<V> {
    /// The value of `key`, made if absent.
    pub(super) fn entry(&mut self, key: &[u8]) -> &mut V {
        let mut at = 0;
        let mut rest = key;
        while let Some((&first, tail)) = rest.split_first() {
            match self.nodes[at].children.binary_search_by_key(&first, |child| child.0) {
                Err(place) => {
                    let leaf = self.nodes.len();
                    self.nodes.push(Node::leaf(tail));
                    self.nodes[at].children.insert(place, (first, leaf));
                    at = leaf;
                    rest = &[];
                }
                Ok(place) => {
                    let child = self.nodes[at].children[place].1;
                    let shared = shared_length(&self.nodes[child].label, tail);
                    at = self.split(at, place, shared);
                    rest = &tail[shared..];
                }
            }
        }
        self.nodes[at].value.get_or_insert_default()
    }

    /// Cuts the edge to a child so that only `shared` bytes of its label lead to the node returned.
    fn split(&mut self, parent: usize, place: usize, shared: usize) -> usize {
        let child = self.nodes[parent].children[place].1;
        let label = std::mem::take(&mut self.nodes[child].label);
        let Some((&next, below)) = label[shared..].split_first() else {
            self.nodes[child].label = label;
            return child;
        };
        let middle = self.nodes.len();
        self.nodes.push(Node::leaf(&label[..shared]));
        self.nodes[middle].children.push((next, child));
        self.nodes[child].label = below.into();
        self.nodes[parent].children[place].1 = middle;
        middle
    }
}

impl<V> Trie<V> {
    /// Values of all keys that `bytes` begins with, shortest key first.
    pub(super) fn prefixes_of<B: Iterator<Item = u8>>(&self, bytes: B) -> PrefixesOf<'_, V, B> {
        PrefixesOf { trie: self, node: self.nodes.first(), bytes }
    }

    /// Every value, in no particular order.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.nodes.iter_mut().filter_map(|node| node.value.as_mut())
    }
}

/// See [`Trie::prefixes_of`].
pub(super) struct PrefixesOf<'t, V, B> {
    trie: &'t Trie<V>,
    node: Option<&'t Node<V>>,
    bytes: B,
}

impl<'t, V, B: Iterator<Item = u8>> PrefixesOf<'t, V, B> {
    fn below(&mut self, node: &Node<V>) -> Option<&'t Node<V>> {
        let byte = self.bytes.next()?;
        let place = node.children.binary_search_by_key(&byte, |child| child.0).ok()?;
        let child = self.trie.nodes.get(node.children.get(place)?.1)?;
        child.label.iter().all(|label| self.bytes.next() == Some(*label)).then_some(child)
    }
}

impl<'t, V, B: Iterator<Item = u8>> Iterator for PrefixesOf<'t, V, B> {
    type Item = &'t V;

    fn next(&mut self) -> Option<&'t V> {
        loop {
            let node = self.node?;
            self.node = self.below(node);
            if node.value.is_some() {
                return node.value.as_ref();
            }
        }
    }
}

fn shared_length(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Trie;

    fn trie(keys: &[&str]) -> Trie<String> {
        let mut trie = Trie::default();
        for key in keys {
            *trie.entry(key.as_bytes()) = (*key).to_owned();
        }
        trie
    }

    #[test]
    fn finds_prefixes_shortest_first() {
        let trie = trie(&["/api/v1", "/", "/api/v2", "/api", "/apiary", "", "/b"]);
        let found: Vec<_> = trie.prefixes_of("/api/v1/x".bytes()).collect();
        assert_eq!(found, ["", "/", "/api", "/api/v1"]);
        assert_eq!(trie.prefixes_of("b".bytes()).count(), 1);
    }

    #[test]
    fn an_empty_tree_finds_nothing() {
        assert_eq!(trie(&[]).prefixes_of("abc".bytes()).count(), 0);
    }

    proptest! {
        #[test]
        fn equals_a_scan_over_all_keys(
            keys in prop::collection::btree_set("[ab]{0,5}", 0..20),
            text in "[ab]{0,7}",
        ) {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            let mut expected: Vec<_> = keys.iter().filter(|key| text.starts_with(**key)).collect();
            expected.sort_by_key(|key| key.len());
            let trie = trie(&keys);
            let found: Vec<_> = trie.prefixes_of(text.bytes()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
