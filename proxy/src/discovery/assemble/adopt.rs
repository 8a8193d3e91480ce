//! What an update leaves as it is keeps its identity, by which its live state is found: the tokens of local rate limits.

use std::sync::Arc;

use crate::config::http::HttpConnectionManager;
use crate::config::http_filter::{FilterKind, FilterOverride, FilterRule};
use crate::config::route::{Action, ClusterSpecifier, Route, RouteConfig};

/// `config`, with those of its filters that `old` has as well, and that have live state.
pub(super) fn manager(
    config: &Arc<HttpConnectionManager>,
    old: Option<&HttpConnectionManager>,
) -> Arc<HttpConnectionManager> {
    let has_state = |kind: &FilterKind| matches!(kind, FilterKind::LocalRateLimit(_));
    let Some(old) = old.filter(|_| config.filters.iter().any(|it| has_state(&it.kind))) else {
        return Arc::clone(config);
    };
    let mut config = HttpConnectionManager::clone(config);
    for filter in config.filters.iter_mut().filter(|it| has_state(&it.kind)) {
        if let Some(known) = old.filters.iter().find(|known| *known == filter) {
            *filter = known.clone();
        }
    }
    Arc::new(config)
}

/// `config`, with what it says as `old` says it to filters that have live state.
pub(super) fn table(config: &Arc<RouteConfig>, old: Option<&RouteConfig>) -> Arc<RouteConfig> {
    let Some(old) = old.filter(|_| table_has_state(config)) else { return Arc::clone(config) };
    let mut config = RouteConfig::clone(config);
    adopt(&mut config.filters, &old.filters);
    for host in &mut config.virtual_hosts {
        let Some(old) = old.virtual_hosts.iter().find(|old| old.name == host.name) else {
            continue;
        };
        adopt(&mut host.filters, &old.filters);
        for route in host.routes.iter_mut().filter(|route| route_has_state(route)) {
            let is_same =
                |old: &&Arc<Route>| old.name == route.name && old.matcher == route.matcher;
            if let Some(old) = old.routes.iter().find(is_same) {
                adopt_route(Arc::make_mut(route), old);
            }
        }
    }
    Arc::new(config)
}

fn adopt_route(route: &mut Route, old: &Route) {
    adopt(&mut route.filters, &old.filters);
    if let (Action::Forward(action), Action::Forward(old)) = (&mut route.action, &old.action)
        && let ClusterSpecifier::Weighted(clusters) = &mut action.cluster
        && let ClusterSpecifier::Weighted(old) = &old.cluster
    {
        for cluster in &mut clusters.clusters {
            if let Some(old) = old.clusters.iter().find(|old| old.target == cluster.target) {
                adopt(&mut cluster.filters, &old.filters);
            }
        }
    }
}

fn adopt(filters: &mut [Arc<FilterOverride>], old: &[Arc<FilterOverride>]) {
    for filter in filters.iter_mut().filter(|filter| has_state(filter)) {
        if let Some(known) = old.iter().find(|known| *known == filter) {
            *filter = Arc::clone(known);
        }
    }
}

fn has_state(filter: &Arc<FilterOverride>) -> bool {
    matches!(filter.rule, FilterRule::LocalRateLimit(_))
}

fn table_has_state(config: &RouteConfig) -> bool {
    config.filters.iter().any(has_state)
        || config.virtual_hosts.iter().any(|host| {
            host.filters.iter().any(has_state) || host.routes.iter().any(|it| route_has_state(it))
        })
}

fn route_has_state(route: &Route) -> bool {
    let weighted = match &route.action {
        Action::Forward(action) => match &action.cluster {
            ClusterSpecifier::Weighted(clusters) => clusters.clusters.as_slice(),
            ClusterSpecifier::Name(_) | ClusterSpecifier::Header(_) => &[],
        },
        Action::Redirect(_) | Action::DirectResponse(_) => &[],
    };
    route.filters.iter().any(has_state)
        || weighted.iter().any(|cluster| cluster.filters.iter().any(has_state))
}
