//! What a route table says to HTTP filters, put together for each route when the table is compiled.

use std::sync::Arc;

use super::{Found, RouteTable};
use crate::config::http_filter::{FilterOverride, FilterRule};
use crate::config::route::{Action, ClusterSpecifier, RouteConfig};

/// What a table says to filters; empty if that is nothing.
#[derive(Debug, Default)]
pub(super) struct TableOverrides {
    /// One per virtual host; one of these per route: what it, its virtual host and the table say, in this order.
    hosts: Vec<Vec<Arc<[Arc<FilterOverride>]>>>,
}

impl TableOverrides {
    pub(super) fn compile(config: &RouteConfig) -> Self {
        let hosts = &config.virtual_hosts;
        let mut routes = hosts.iter().flat_map(|host| &host.routes);
        let silent = config.filters.is_empty()
            && hosts.iter().all(|host| host.filters.is_empty())
            && routes.all(|route| route.filters.is_empty());
        if silent {
            return Self::default();
        }
        let of_host = |host: &crate::config::route::VirtualHost| {
            let common = || host.filters.iter().chain(&config.filters).cloned();
            let shared: Arc<[_]> = common().collect();
            let of_route = |own: &[Arc<FilterOverride>]| match own {
                [] => Arc::clone(&shared),
                own => own.iter().cloned().chain(common()).collect(),
            };
            host.routes.iter().map(|route| of_route(&route.filters)).collect()
        };
        Self { hosts: hosts.iter().map(of_host).collect() }
    }
}

/// What is said to the filters of one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    weighted: &'a [Arc<FilterOverride>],
    route: &'a [Arc<FilterOverride>],
}

impl<'a> Said<'a> {
    /// What is said to `filter`, the most specific first: by the weighted cluster, the route, the virtual host, the
    /// table.
    pub fn to(self, filter: &str) -> impl Iterator<Item = &'a FilterRule> {
        let all = self.weighted.iter().chain(self.route);
        all.filter(move |it| *it.filter == *filter).map(|it| &it.rule)
    }
}

impl RouteTable {
    /// What is said to the filters of a request on the route `found`; `weighted` is the weighted cluster chosen.
    /// Nothing if there is no route.
    pub fn said(&self, found: Found, weighted: Option<usize>) -> Said<'_> {
        let Some((host, number)) = found.place() else { return Said::default() };
        let route = self.overrides.hosts.get(host).and_then(|host| host.get(number));
        let cluster = weighted.and_then(|weighted| match &self.route(found)?.action {
            Action::Forward(action) => match &action.cluster {
                ClusterSpecifier::Weighted(clusters) => clusters.clusters.get(weighted),
                ClusterSpecifier::Name(_) | ClusterSpecifier::Header(_) => None,
            },
            Action::Redirect(_) | Action::DirectResponse(_) => None,
        });
        Said {
            weighted: cluster.map_or(&[], |cluster| &cluster.filters),
            route: route.map_or(&[], |route| route),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::route::VirtualHost;
    use crate::route::Circumstances;
    use crate::route::tests::{forward, get, on_path, prefix, route, weighted};

    fn says(rules: &[(&str, FilterRule)]) -> Vec<Arc<FilterOverride>> {
        let one = |(filter, rule): &(&str, FilterRule)| {
            Arc::new(FilterOverride { filter: (*filter).into(), rule: rule.clone() })
        };
        rules.iter().map(one).collect()
    }

    #[test]
    fn the_most_specific_comes_first() {
        use FilterRule::{Disabled, Enabled, StatefulSession};
        let mut cluster = weighted("c", 1);
        cluster.filters = says(&[("a", Disabled)]);
        let clusters = crate::config::route::WeightedClusters {
            clusters: vec![cluster],
            total: 1,
            random_value: crate::config::route::RandomValue::Drawn,
        };
        let action = forward(ClusterSpecifier::Weighted(clusters));
        let mut own = route(on_path(prefix("/own")));
        own.action = Action::Forward(Box::new(action.clone()));
        own.filters = says(&[("a", StatefulSession(None)), ("b", Enabled)]);
        let mut plain = route(on_path(prefix("/")));
        plain.action = Action::Forward(Box::new(action));
        let table = RouteTable::compile(Arc::new(RouteConfig {
            virtual_hosts: vec![VirtualHost {
                domains: vec!["*".into()],
                routes: vec![Arc::new(own), Arc::new(plain)],
                filters: says(&[("a", Enabled)]),
                ..VirtualHost::default()
            }],
            filters: says(&[("a", StatefulSession(None)), ("b", Disabled)]),
            ..RouteConfig::default()
        }))
        .unwrap();
        let said = |path, weighted, filter| {
            let headers = http::HeaderMap::new();
            let found = table.find(&get(path, &headers), 0, Circumstances::default()).unwrap();
            table.said(found, weighted).to(filter).cloned().collect::<Vec<_>>()
        };
        assert_eq!(
            said("/own", Some(0), "a"),
            [Disabled, StatefulSession(None), Enabled, StatefulSession(None)]
        );
        assert_eq!(said("/own", None, "b"), [Enabled, Disabled]);
        assert_eq!(said("/", None, "a"), [Enabled, StatefulSession(None)]);
        assert_eq!(said("/", None, "c"), []);
    }
}
