//! What configuration alone tells about the way into a subset, for explanations.

use super::division::{ANY, Division, Target};
use super::part_of;
use crate::config::endpoint::LoadAssignment;
use crate::config::subset::{Criteria, Fallback, MetadataMatch, SubsetLb};

/// The endpoints that a request may go to.
#[derive(Debug, PartialEq, Eq)]
pub struct Preview {
    /// Their places in the assignment; empty if the request is refused.
    pub endpoints: Vec<usize>,
    /// Why these.
    pub by: Reason,
}

/// Why it is these endpoints.
#[derive(Debug, PartialEq, Eq)]
pub enum Reason {
    /// They are the subset with this name: a `"key"=value` on each line.
    Subset(String),
    /// There is no such subset, and the fallback of its selector, or of the cluster, says this.
    Fallback(Fallback),
    /// The fallback has no endpoints, so that any will do (`panic_mode_any`).
    Panic,
}

impl Preview {
    /// Where a request that wants `wanted` goes, while everybody is in good health.
    pub fn new(
        config: &SubsetLb,
        assignment: &LoadAssignment,
        wanted: Option<&MetadataMatch>,
    ) -> Self {
        let endpoints = assignment.endpoints.iter();
        let endpoints = endpoints.map(|it| (it.locality.priority, it.metadata.as_deref()));
        let division = Division::new(config, endpoints);
        let look = |wanted: Option<&Criteria>| look(&division, config, wanted);
        match wanted {
            Some(MetadataMatch { fallbacks: Some(list), .. }) if config.fallback_list => {
                let mut tried = list.iter().map(|wanted| look(Some(wanted)));
                let found = tried.find(|preview| !preview.endpoints.is_empty());
                found.unwrap_or_else(|| look(list.last()))
            }
            Some(MetadataMatch { criteria, .. }) => look(Some(criteria)),
            None => look(None),
        }
    }
}

fn look(division: &Division, config: &SubsetLb, wanted: Option<&Criteria>) -> Preview {
    let members = |part: Option<usize>| {
        let part = part.and_then(|part| division.part(part));
        part.map(|part| part.members.clone()).unwrap_or_default()
    };
    let mut name = String::new();
    let target = wanted.map(|wanted| division.find(config, wanted, &mut name));
    match target.unwrap_or(Target::Fallback) {
        Target::Subset(part) => {
            let name = division.name(part).unwrap_or_default().to_owned();
            Preview { endpoints: members(Some(part)), by: Reason::Subset(name) }
        }
        Target::Selector(fallback) => {
            Preview { endpoints: members(part_of(fallback)), by: Reason::Fallback(fallback) }
        }
        Target::Fallback => {
            let endpoints = members(part_of(config.fallback));
            if endpoints.is_empty() && config.fallback != Fallback::None && config.panic_mode_any {
                return Preview { endpoints: members(Some(ANY)), by: Reason::Panic };
            }
            Preview { endpoints, by: Reason::Fallback(config.fallback) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::division::tests::{config, criteria, selector};
    use super::*;
    use crate::config::subset::SelectorFallback;

    /// With nobody there.
    fn preview(config: &SubsetLb, wanted: &serde_json::Value) -> Preview {
        let wanted = MetadataMatch::new(wanted.as_object().unwrap());
        Preview::new(config, &LoadAssignment::default(), Some(&wanted))
    }

    #[test]
    fn a_refusal_has_a_reason_too() {
        let none = Some(SelectorFallback::To(Fallback::None));
        let mut config = config(vec![selector(&["v"], none)]);
        config.fallback = Fallback::Default;
        config.default_subset = criteria(json!({"d": 1}));
        let by = |config: &SubsetLb, wanted| preview(config, &wanted).by;
        assert_eq!(by(&config, json!({"v": 1})), Reason::Fallback(Fallback::None));
        assert_eq!(by(&config, json!({"w": 1})), Reason::Fallback(Fallback::Default));
        config.panic_mode_any = true;
        assert_eq!(by(&config, json!({"w": 1})), Reason::Panic);
        config.fallback_list = true;
        let list = json!({"w": 1, "fallback_list": [{"w": 2}, {"v": 3}]});
        assert_eq!(by(&config, list), Reason::Panic, "the last that was tried has other keys, too");
    }
}
