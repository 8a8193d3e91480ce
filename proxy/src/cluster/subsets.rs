//! The subsets of a cluster's endpoints, and which of them a request is balanced over.

mod division;
pub(super) mod preview;

use std::sync::Arc;

use fastrand::Rng;

use super::load_balancer::Balancer;
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
    balancers: Vec<Option<Balancer>>,
    /// Where names of subsets are written.
    name: String,
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
            name: String::new(),
        }
    }

    /// Forgets how members are arranged: their health has changed.
    pub(super) fn rearrange(&mut self) {
        self.balancers.fill_with(|| None);
    }

    /// The number of the member to use for `context`; none if there is none.
    pub(super) fn pick(
        &mut self,
        roster: Roster<'_>,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Option<usize> {
        match context.metadata_match {
            Some(MetadataMatch { fallbacks: Some(list), .. }) if self.config.fallback_list => {
                list.iter().find_map(|wanted| self.pick_for(Some(wanted), roster, context, random))
            }
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
    ) -> Option<usize> {
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
            Target::Selector(fallback) => pick(part_of(fallback)?),
            Target::Fallback => {
                let picked = pick(part_of(fallback)?);
                if picked.is_some() {
                    roster.stats.lb_subsets_fallback.inc();
                    return picked;
                }
                let picked = if panic_mode_any { pick(ANY) } else { None };
                if picked.is_some() {
                    roster.stats.lb_subsets_fallback_panic.inc();
                }
                picked
            }
        }
    }

    fn pick_among(
        &mut self,
        number: usize,
        roster: Roster<'_>,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Option<usize> {
        let part = self.division.part(number)?;
        if part.single {
            return part.members.first().copied();
        }
        let balancer = self.balancers.get_mut(number)?;
        let balancer =
            balancer.get_or_insert_with(|| roster.subset(&self.config, &part.members, random));
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
