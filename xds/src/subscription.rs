//! Which resources of one kind a client wants: names, and the wildcard with its history ("How the client specifies
//! what resources to return").

use std::collections::BTreeSet;

use crate::type_url::ResourceType;

/// The name that stands for every resource the server has for the node.
pub const WILDCARD: &str = "*";

/// What a client wants of one kind, and what a server has heard of that on a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    names: BTreeSet<String>,
    wildcard: bool,
    /// Whether anything was named: from then on, naming nothing means wanting nothing.
    named: bool,
}

impl Subscription {
    /// The names that are wanted besides the wildcard.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether everything is wanted.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.wildcard
    }

    /// Whether a resource of this name, or known by one of `aliases`, is wanted.
    pub fn wants(&self, name: &str, aliases: &[String]) -> bool {
        self.wildcard
            || self.names.contains(name)
            || aliases.iter().any(|alias| self.names.contains(alias))
    }

    /// Adds a name, or the wildcard; says whether it is new.
    pub fn add(&mut self, name: &str) -> bool {
        self.named = true;
        if name == WILDCARD {
            return !std::mem::replace(&mut self.wildcard, true);
        }
        self.names.insert(name.to_owned())
    }

    /// Takes away a name, or the wildcard; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.named = true;
        if name == WILDCARD {
            return std::mem::replace(&mut self.wildcard, false);
        }
        self.names.remove(name)
    }

    /// What the names of a state-of-the-world request mean: they replace all earlier ones. Requests that never name
    /// anything ask for everything, where there is a wildcard.
    pub fn replace(&mut self, kind: ResourceType, names: &[String]) {
        if names.is_empty() && !self.named {
            self.wildcard = kind.has_wildcard();
            return;
        }
        // Every ACK repeats the names.
        if self.named && self.is(names) {
            return;
        }
        self.named = true;
        self.wildcard = names.iter().any(|name| name == WILDCARD);
        self.names = names.iter().filter(|name| *name != WILDCARD).cloned().collect();
    }

    /// Whether these names, without repetition, are what is wanted.
    pub(crate) fn is(&self, names: &[String]) -> bool {
        let wanted = |name: &String| match name.as_str() {
            WILDCARD => self.wildcard,
            name => self.names.contains(name),
        };
        names.len() == self.names.len() + usize::from(self.wildcard) && names.iter().all(wanted)
    }

    /// What the names of an incremental request mean: they are added and taken away. A wildcard that came about by
    /// naming nothing stays until `*` is taken away.
    pub fn change(&mut self, kind: ResourceType, subscribe: &[String], unsubscribe: &[String]) {
        if subscribe.is_empty() && unsubscribe.is_empty() {
            if !self.named {
                self.wildcard = kind.has_wildcard();
            }
            return;
        }
        for name in subscribe {
            self.add(name);
        }
        for name in unsubscribe {
            self.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Subscription;
    use crate::type_url::ResourceType::{Cluster, Endpoints};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_protocols_example_for_state_of_the_world() {
        let mut wanted = Subscription::default();
        wanted.replace(Cluster, &[]);
        assert!(wanted.is_wildcard());
        wanted.replace(Cluster, &names(&["*", "A"]));
        assert!(wanted.is_wildcard() && wanted.names().contains("A"));
        wanted.replace(Cluster, &names(&["A"]));
        assert!(!wanted.is_wildcard() && wanted.names().contains("A"));
        wanted.replace(Cluster, &[]);
        assert!(wanted.is_empty());
    }

    #[test]
    fn the_protocols_example_for_incremental() {
        let mut wanted = Subscription::default();
        wanted.change(Cluster, &[], &[]);
        assert!(wanted.is_wildcard());
        wanted.change(Cluster, &names(&["A"]), &[]);
        assert!(wanted.is_wildcard() && wanted.names().contains("A"));
        wanted.change(Cluster, &[], &names(&["*"]));
        assert!(!wanted.is_wildcard() && wanted.names().contains("A"));
        wanted.change(Cluster, &[], &names(&["A"]));
        assert!(wanted.is_empty());
        wanted.change(Cluster, &[], &[]);
        assert!(wanted.is_empty());
    }

    #[test]
    fn naming_no_endpoints_asks_for_none() {
        let mut wanted = Subscription::default();
        wanted.replace(Endpoints, &[]);
        assert!(wanted.is_empty());
        wanted.change(Endpoints, &[], &[]);
        assert!(wanted.is_empty());
        wanted.change(Endpoints, &names(&["*"]), &[]);
        assert!(wanted.wants("anything", &[]));
    }

    #[test]
    fn an_alias_is_as_good_as_a_name() {
        let mut wanted = Subscription::default();
        wanted.replace(Endpoints, &names(&["alias"]));
        assert!(wanted.wants("name", &names(&["other", "alias"])));
        assert!(!wanted.wants("name", &[]));
    }
}
