//! Which clusters and listeners still wait for resources they refer to, and which resources are needed at all
//! ("Resource warming"). Pure bookkeeping: whoever decodes says what refers to what.
//!
//! What is changed stays in use as it was until the new one is warm. A resource that is already known is not waited for
//! again, and one that is missing ([`crate::client::Cause::Missing`]) or does not exist is waited for no longer: a
//! cluster without endpoints is better than none.

use std::collections::{BTreeMap, BTreeSet};

use crate::type_url::ResourceType;

/// A resource by kind and name.
pub type Reference = (ResourceType, String);

/// What refers to other resources, and what has become of those.
#[derive(Debug, Default)]
pub struct Warming {
    owners: BTreeMap<Reference, Owner>,
    /// Resources that have come, or are known not to.
    settled: BTreeSet<Reference>,
}

/// A cluster or a listener.
#[derive(Debug, Default)]
struct Owner {
    /// What the one in use refers to.
    active: BTreeSet<Reference>,
    /// What the one that is to replace it refers to.
    warming: Option<BTreeSet<Reference>>,
}

impl Warming {
    /// `owner` is new or has changed, and refers to `references`. Says whether it can be used at once.
    pub fn changed(
        &mut self,
        owner: &Reference,
        references: impl IntoIterator<Item = Reference>,
    ) -> bool {
        let references: BTreeSet<Reference> = references.into_iter().collect();
        let entry = self.owners.entry(owner.clone()).or_default();
        let is_warm = references.is_subset(&self.settled);
        if is_warm {
            *entry = Owner { active: references, warming: None };
            self.forget_unneeded();
        } else {
            entry.warming = Some(references);
        }
        is_warm
    }

    /// `owner` is gone, and so is what only it referred to.
    pub fn removed(&mut self, owner: &Reference) {
        self.owners.remove(owner);
        self.forget_unneeded();
    }

    /// A resource has come, is missing or does not exist. Returns who has become warm by that and is to be used now.
    pub fn arrived(&mut self, resource: &Reference) -> Vec<Reference> {
        if !self.is_needed(resource) {
            return Vec::new();
        }
        self.settled.insert(resource.clone());
        let mut warm = Vec::new();
        for (name, owner) in &mut self.owners {
            if let Some(references) =
                owner.warming.take_if(|references| references.is_subset(&self.settled))
            {
                owner.active = references;
                warm.push(name.clone());
            }
        }
        if !warm.is_empty() {
            self.forget_unneeded();
        }
        warm
    }

    /// What `owner` still waits for; nothing if it is warm or unknown.
    pub fn waits_for<'a>(&'a self, owner: &Reference) -> impl Iterator<Item = &'a Reference> {
        let references = self.owners.get(owner).and_then(|owner| owner.warming.as_ref());
        references.into_iter().flat_map(|references| references.difference(&self.settled))
    }

    /// Who is not warm yet.
    pub fn warming(&self) -> impl Iterator<Item = &Reference> {
        let warming = self.owners.iter().filter(|(_, owner)| owner.warming.is_some());
        warming.map(|(name, _)| name)
    }

    /// The names of a kind that anything refers to, be it in use or not yet: what is to be subscribed to.
    pub fn wanted(&self, kind: ResourceType) -> BTreeSet<&str> {
        let of_kind = self.references().filter(|(it, _)| *it == kind);
        of_kind.map(|(_, name)| &**name).collect()
    }

    fn references(&self) -> impl Iterator<Item = &Reference> {
        self.owners
            .values()
            .flat_map(|owner| owner.active.iter().chain(owner.warming.iter().flatten()))
    }

    fn is_needed(&self, resource: &Reference) -> bool {
        self.owners.values().any(|owner| {
            owner.active.contains(resource)
                || owner.warming.as_ref().is_some_and(|warming| warming.contains(resource))
        })
    }

    /// Who comes to need it later has to wait for it again.
    fn forget_unneeded(&mut self) {
        let needed: BTreeSet<Reference> = self.references().cloned().collect();
        self.settled.retain(|resource| needed.contains(resource));
    }
}

#[cfg(test)]
mod tests {
    use super::{Reference, Warming};
    use crate::type_url::ResourceType::{self, Cluster, Endpoints, Listener, Routes, Secret};

    fn of(kind: ResourceType, name: &str) -> Reference {
        (kind, name.to_owned())
    }

    #[test]
    fn a_cluster_waits_for_its_endpoints_and_its_secret() {
        let mut warming = Warming::default();
        let cluster = of(Cluster, "c");
        assert!(!warming.changed(&cluster, [of(Endpoints, "e"), of(Secret, "s")]));
        assert_eq!(warming.wanted(Endpoints), ["e"].into());
        assert!(warming.arrived(&of(Endpoints, "e")).is_empty());
        assert_eq!(warming.waits_for(&cluster).collect::<Vec<_>>(), [&of(Secret, "s")]);
        assert_eq!(warming.arrived(&of(Secret, "s")), [cluster]);
        assert_eq!(warming.warming().count(), 0);
    }

    #[test]
    fn what_is_in_use_keeps_what_it_needs_until_its_replacement_is_warm() {
        let mut warming = Warming::default();
        let listener = of(Listener, "l");
        warming.changed(&listener, [of(Routes, "old")]);
        warming.arrived(&of(Routes, "old"));
        assert!(!warming.changed(&listener, [of(Routes, "new")]));
        assert_eq!(warming.wanted(Routes), ["new", "old"].into());
        assert_eq!(warming.arrived(&of(Routes, "new")), [listener]);
        assert_eq!(warming.wanted(Routes), ["new"].into());
    }

    #[test]
    fn what_is_known_is_not_waited_for_and_what_is_not_needed_is_forgotten() {
        let mut warming = Warming::default();
        let (one, two) = (of(Cluster, "1"), of(Cluster, "2"));
        assert!(warming.changed(&one, []));
        assert!(!warming.changed(&one, [of(Secret, "s")]));
        warming.arrived(&of(Secret, "s"));
        assert!(warming.changed(&two, [of(Secret, "s")]));
        warming.removed(&one);
        assert_eq!(warming.wanted(Secret), ["s"].into());
        warming.removed(&two);
        assert!(warming.wanted(Secret).is_empty());
        assert!(!warming.changed(&one, [of(Secret, "s")]), "it has to come again");
        assert!(warming.arrived(&of(Secret, "other")).is_empty());
    }
}
