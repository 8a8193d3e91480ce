//! `exportTo`: the namespaces that may see an object.

use std::collections::BTreeSet;

/// Who may see something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Every namespace.
    All,
    /// These namespaces, perhaps none.
    Only(BTreeSet<String>),
}

impl Visibility {
    /// From the field `exportTo` of an object in `namespace`: `.` is its own namespace, `*` every one, `~` none. If
    /// the field is empty, `default` of the mesh takes its place.
    pub fn of(export_to: &[String], namespace: &str, default: &[String]) -> Self {
        let given = if export_to.is_empty() { default } else { export_to };
        let mut namespaces = BTreeSet::new();
        for name in given {
            match name.as_str() {
                "*" => return Self::All,
                "." => namespaces.insert(namespace.to_owned()),
                "~" => false,
                name => namespaces.insert(name.to_owned()),
            };
        }
        Self::Only(namespaces)
    }

    /// Whether `namespace` may see it.
    pub fn sees(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }

    /// Whether some namespace may see both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::All, Self::Only(some)) | (Self::Only(some), Self::All) => !some.is_empty(),
            (Self::Only(one), Self::Only(other)) => !one.is_disjoint(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(export_to: &[&str]) -> Visibility {
        let export_to: Vec<String> = export_to.iter().map(ToString::to_string).collect();
        Visibility::of(&export_to, "own", &["*".to_owned()])
    }

    #[test]
    fn namespaces_are_named_and_dots_are_the_own_one() {
        assert_eq!(of(&[]), Visibility::All);
        assert_eq!(of(&["a", "*"]), Visibility::All);
        assert!(of(&["."]).sees("own") && !of(&["."]).sees("other"));
        assert!(of(&["a", "b"]).sees("b") && !of(&["~"]).sees("own"));
    }

    #[test]
    fn two_overlap_where_somebody_sees_both() {
        assert!(of(&["a"]).overlaps(&of(&[])));
        assert!(of(&["."]).overlaps(&of(&["own", "a"])));
        assert!(!of(&["a"]).overlaps(&of(&["."])));
        assert!(!of(&["~"]).overlaps(&of(&[])));
    }
}
