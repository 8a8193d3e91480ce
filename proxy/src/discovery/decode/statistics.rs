//! Which statistics the admin API shows.

use xds::envoy::config::metrics::v3::stats_matcher::StatsMatcher as Selection;
use xds::envoy::config::metrics::v3::{StatsConfig, StatsMatcher};

use super::errors::{At, Result, refuse};
use super::matcher::string_list;
use crate::config::statistics::ShownStats;

/// The choice in `stats_config`.
pub(super) fn shown_stats(proto: &StatsConfig) -> Result<ShownStats> {
    let StatsConfig { stats_tags: _, use_all_default_tags: _, stats_matcher } = proto;
    let Some(StatsMatcher { stats_matcher }) = stats_matcher else { return Ok(ShownStats::All) };
    match stats_matcher {
        Some(Selection::RejectAll(true)) => Ok(ShownStats::Only(Vec::new())),
        Some(Selection::RejectAll(false)) => Ok(ShownStats::All),
        Some(Selection::InclusionList(list)) => {
            string_list(list).at("inclusion_list").map(ShownStats::Only)
        }
        Some(Selection::ExclusionList(list)) => {
            string_list(list).at("exclusion_list").map(ShownStats::AllBut)
        }
        None => refuse("", "required: reject_all, exclusion_list or inclusion_list"),
    }
    .at("stats_matcher")
}
