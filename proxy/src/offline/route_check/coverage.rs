//! How much of a route table the tests have taken.

use std::collections::BTreeMap;

use super::answer::Answer;
use super::compare::Matched;
use crate::config::route::{Action, ClusterSpecifier, RouteConfig};

/// A route: its virtual host, its place there, and which weighted cluster of it.
type Place = (usize, usize, usize);

/// What of each route some test has confirmed.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    routes: BTreeMap<Place, Matched>,
}

impl Coverage {
    /// Notes what a test has confirmed of the route that `answer` took.
    pub(super) fn mark(&mut self, answer: &Answer, matched: Matched) {
        if let (Some((host, route)), false) = (answer.place, matched.is_empty()) {
            let place = (host, route, answer.weighted.unwrap_or(0));
            self.routes.entry(place).or_default().add(matched);
        }
    }

    /// The share of routes that are covered, in percent; a weighted cluster counts as a route of its own. If
    /// `comprehensive`, a route counts by the share of its properties that were confirmed.
    pub(super) fn percent(&self, config: &RouteConfig, comprehensive: bool) -> f64 {
        let all: usize =
            config.virtual_hosts.iter().flat_map(|it| &it.routes).map(|r| ways(&r.action)).sum();
        let share = |matched: &Matched| if comprehensive { matched.share() } else { 1.0 };
        100.0 * self.routes.values().map(share).fold(0.0, |sum, share| sum + share)
            / all.max(1) as f64
    }

    /// The routes that no test has taken, in words.
    pub(super) fn missing(&self, config: &RouteConfig) -> Vec<String> {
        let mut missing = Vec::new();
        for (at, host) in config.virtual_hosts.iter().enumerate() {
            for (number, route) in host.routes.iter().enumerate() {
                let taken = self.routes.range((at, number, 0)..=(at, number, usize::MAX)).next();
                if taken.is_none() {
                    let matcher = &route.matcher.path;
                    missing.push(format!("host: {}, route {number}: {matcher:?}", host.name));
                }
            }
        }
        missing
    }
}

fn ways(action: &Action) -> usize {
    match action {
        Action::Forward(action) => match &action.cluster {
            ClusterSpecifier::Weighted(weighted) => weighted.clusters.len(),
            ClusterSpecifier::Name(_) | ClusterSpecifier::Header(_) => 1,
        },
        Action::Redirect(_) | Action::DirectResponse(_) => 1,
    }
}
