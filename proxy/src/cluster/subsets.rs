//! The subsets of a cluster's endpoints, and which of them a request is balanced over.

mod division;
pub(super) mod preview;

use std::sync::Arc;

use fastrand::Rng;

use super::load_balancer::Balancer;
use super::load_balancer::hash_table::Unready;
use super::member::Roster;
use super::pick_context::PickContext;
use crate::config::subset::{Criteria, Fallback, MetadataMatch, SubsetLb};
use crate::telemetry::metrics::ClusterStats;
use division::{ANY, DEFAULT, Division, Target};

/// The subsets of one cluster, each arranged when the first request wants it.
#[derive(Debug)]
pub(super) struct Subsets {
    config: Arc<SubsetLb>,
    division: Division,
    /// By the numbers of the division's parts.
    balancers: Vec<Option<Arranged>>,
    /// How often health has changed.
    changes: u64,
    /// Where names of subsets are written.
    name: String,
}

/// A subset, as it was arranged after so many changes of health.
#[derive(Debug)]
struct Arranged {
    balancer: Balancer,
    changes: u64,
}

impl Subsets {
    /// Divides the members of `roster`.
    pub(super) fn new(config: &Arc<SubsetLb>, roster: Roster<'_>) -> Self {
        let members = roster.members.iter().map(|member| {
            let endpoint = roster.spec.assignment.endpoints.get(member.place);
            (member.priority, endpoint.and_then(|endpoint| endpoint.metadata.as_deref()))
        });
        let division = Division::new(config, members);
        Self {
            config: Arc::clone(config),
            balancers: std::iter::repeat_with(|| None).take(division.len()).collect(),
            division,
            changes: 0,
            name: String::new(),
        }
    }

    /// Arranges members anew when they are next wanted: their health has changed.
    pub(super) fn rearrange(&mut self) {
        self.changes += 1;
    }

    /// The number of the member to use for `context`; none if there is none.
    ///
    /// # Errors
    /// If the subset is not ready for that.
    pub(super) fn pick(
        &mut self,
        roster: Roster<'_>,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Result<Option<usize>, Unready> {
        match context.metadata_match {
            Some(MetadataMatch { fallbacks: Some(list), .. }) if self.config.fallback_list => list
                .iter()
                .find_map(|wanted| self.pick_for(Some(wanted), roster, context, random).transpose())
                .transpose(),
            Some(MetadataMatch { criteria, .. }) => {
                self.pick_for(Some(criteria), roster, context, random)
            }
            None => self.pick_for(None, roster, context, random),
        }
    }

    fn pick_for(
        &mut self,
        wanted: Option<&Criteria>,
        roster: Roster<'_>,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Result<Option<usize>, Unready> {
        let target = match wanted {
            Some(wanted) => self.division.find(&self.config, wanted, &mut self.name),
            None => Target::Fallback,
        };
        let (fallback, panic_mode_any) = (self.config.fallback, self.config.panic_mode_any);
        let mut pick = |part| self.pick_among(part, roster, context, random);
        match target {
            Target::Subset(part) => {
                roster.stats.lb_subsets_selected.inc();
                pick(part)
            }
            Target::Selector(fallback) => part_of(fallback).map_or(Ok(None), pick),
            Target::Fallback => {
                let Some(part) = part_of(fallback) else { return Ok(None) };
                let picked = pick(part)?;
                if picked.is_some() {
                    roster.stats.lb_subsets_fallback.inc();
                    return Ok(picked);
                }
                let picked = if panic_mode_any { pick(ANY)? } else { None };
                if picked.is_some() {
                    roster.stats.lb_subsets_fallback_panic.inc();
                }
                Ok(picked)
            }
        }
    }

    fn pick_among(
        &mut self,
        number: usize,
        roster: Roster<'_>,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Result<Option<usize>, Unready> {
        let Some(part) = self.division.part(number) else { return Ok(None) };
        if part.single {
            return Ok(part.members.first().copied());
        }
        let Some(slot) = self.balancers.get_mut(number) else { return Ok(None) };
        let changes = self.changes;
        let arranged = match slot.take() {
            Some(arranged) if arranged.changes == changes => arranged,
            // The older one is there until the new one is made, which may want to stand on it.
            _older => {
                let balancer = roster.subset(&self.config, &part.members, random);
                Arranged { balancer, changes }
            }
        };
        let balancer = &mut slot.insert(arranged).balancer;
        roster.pick(balancer, Some(&part.members), context, random)
    }

    /// Counts all its subsets as new.
    pub(super) fn count_created(&self, stats: &ClusterStats) {
        let count = self.division.names().count();
        stats.lb_subsets_created.add(count as u64);
        stats.lb_subsets_active.add(count as i64);
    }

    /// Counts all its subsets as gone.
    pub(super) fn count_removed(&self, stats: &ClusterStats) {
        let count = self.division.names().count();
        stats.lb_subsets_removed.add(count as u64);
        stats.lb_subsets_active.add(-(count as i64));
    }

    /// Counts what distinguishes it from `before`.
    pub(super) fn count_changes(&self, before: &Self, stats: &ClusterStats) {
        let (new, old) = (&self.division, &before.division);
        let created = new.names().filter(|name| !old.has(name)).count();
        let removed = old.names().filter(|name| !new.has(name)).count();
        stats.lb_subsets_created.add(created as u64);
        stats.lb_subsets_removed.add(removed as u64);
        stats.lb_subsets_active.add(created as i64 - removed as i64);
    }
}

/// The part that a fallback goes to; none if there is no fallback.
fn part_of(fallback: Fallback) -> Option<usize> {
    match fallback {
        Fallback::None => None,
        Fallback::Any => Some(ANY),
        Fallback::Default => Some(DEFAULT),
    }
}
