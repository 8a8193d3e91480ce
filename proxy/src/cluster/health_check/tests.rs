//! Payload matching.

use super::find;

#[test]
fn parts_are_found_one_after_the_other() {
    let parts = |parts: &[&str]| -> Vec<Vec<u8>> {
        parts.iter().map(|part| part.as_bytes().to_vec()).collect()
    };
    assert!(find(&[], b""));
    assert!(find(&parts(&["ab", "cd"]), b"xabxcdx"));
    assert!(!find(&parts(&["ab", "cd"]), b"cdab"));
    assert!(!find(&parts(&["ab", "b"]), b"ab"), "parts do not overlap");
    assert!(!find(&parts(&["ab"]), b"a"));
}
