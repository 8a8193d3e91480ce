//! Routing: a request's head in, the route to take and the changes to make out. Pure: no I/O, no state, and
//! randomness is an argument.
//!
//! A [`RouteTable`] is compiled once per configuration, so that ten thousand routes cost a request what ten
//! cost. First match wins, exactly as if every route were tried in configuration order.

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::matcher::RequestHead;
use crate::config::metadata::Metadata;
use crate::config::route::{RequireTls, Route, RouteConfig, RouteMatch, VirtualHost};
use crate::config::{Invalid, Name};

mod candidates;
pub mod cookie;
mod filters;
pub mod hash;
mod index;
mod inline;
pub mod local_limit;
mod matcher;
pub mod mutate;
pub mod rate_limit;
pub mod redirect;
pub mod rewrite;
mod substitution;
mod trie;
mod virtual_host;
pub mod weighted;

pub use filters::Said;
pub use matcher::Mismatch;

use filters::TableOverrides;
use index::Index;
use mutate::TableMutations;
use virtual_host::Domains;

/// A compiled route table.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteConfig>,
    domains: Domains,
    /// One per virtual host, in the same order.
    routes: Vec<Index>,
    mutations: TableMutations,
    overrides: TableOverrides,
}

/// What a request matched, as places in the table that found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    virtual_host: u32,
    route: Option<u32>,
}

impl Found {
    /// The places of the virtual host and of the route in the table's configuration; none if no route matched.
    pub fn place(self) -> Option<(usize, usize)> {
        Some((self.virtual_host as usize, self.route? as usize))
    }
}

/// What is known about the client's TLS; the default is a plain-text connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsPresence {
    /// Whether the client presented a certificate.
    pub presented: bool,
    /// Whether that certificate was validated.
    pub validated: bool,
}

/// What routes may ask for besides a request's head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// The client's TLS.
    pub tls: TlsPresence,
    /// What filters before the router have set.
    pub metadata: Option<&'a Metadata>,
}

/// Whether conditions that belong to no table hold for a request: those on its path, headers and parameters.
pub fn holds(conditions: &RouteMatch, head: &RequestHead<'_>) -> bool {
    let circumstances = Circumstances::default();
    matcher::mismatch(conditions, head, head.path(), 0, circumstances).is_none()
}

impl RouteTable {
    /// Compiles `config`.
    ///
    /// # Errors
    /// If two virtual hosts share a domain, or a header value to add cannot be sent.
    pub fn compile(config: Arc<RouteConfig>) -> Result<Self, Invalid> {
        Ok(Self {
            domains: Domains::new(&config.virtual_hosts, config.ignore_port_in_host_matching)?,
            routes: config.virtual_hosts.iter().map(|host| Index::new(&host.routes)).collect(),
            mutations: TableMutations::compile(&config)?,
            overrides: TableOverrides::compile(&config),
            config,
        })
    }

    /// The table as configured.
    pub fn config(&self) -> &Arc<RouteConfig> {
        &self.config
    }

    /// The virtual host and the first route that match; none if no virtual host does.
    ///
    /// `random` is one uniform number per request: use the same for [`weighted::choose`]. Whether the
    /// virtual host sends the client to https first is [`RouteTable::wants_https`].
    pub fn find(
        &self,
        head: &RequestHead<'_>,
        random: u64,
        circumstances: Circumstances<'_>,
    ) -> Option<Found> {
        let virtual_host = self.domains.find(head.authority)?;
        let routes = &self.config.virtual_hosts.get(virtual_host as usize)?.routes;
        let path = &self.matched_path(head);
        let mut candidates = self.routes.get(virtual_host as usize)?.candidates(head, path);
        let route = candidates.find(|number| {
            let route = routes.get(*number as usize);
            route.is_some_and(|route| {
                matcher::mismatch(&route.matcher, head, path, random, circumstances).is_none()
            })
        });
        Some(Found { virtual_host, route })
    }

    /// For each route of the virtual host found, in order: the first condition that the request does not meet,
    /// or none if it meets all. For explanations; a request asks [`RouteTable::find`].
    pub fn mismatches(
        &self,
        found: Found,
        head: &RequestHead<'_>,
        random: u64,
        circumstances: Circumstances<'_>,
    ) -> Vec<Option<Mismatch>> {
        let path = &self.matched_path(head);
        let routes = self.virtual_host(found).map_or(&[][..], |host| &host.routes);
        let of = |route: &Arc<Route>| {
            matcher::mismatch(&route.matcher, head, path, random, circumstances)
        };
        routes.iter().map(of).collect()
    }

    /// The part of the path that routes and policies are matched against: without query, and without the
    /// parameters of its segments if they do not count.
    pub fn matched_path<'a>(&self, head: &RequestHead<'a>) -> Cow<'a, str> {
        let path = head.path();
        if !self.config.ignore_path_parameters_in_path_matching || !path.contains(';') {
            return Cow::Borrowed(path);
        }
        let bare = |segment: &'a str| segment.split(';').next().unwrap_or(segment);
        Cow::Owned(path.split('/').map(bare).collect::<Vec<_>>().join("/"))
    }

    /// The virtual host found; none only if `found` is of another table.
    pub fn virtual_host(&self, found: Found) -> Option<&VirtualHost> {
        self.config.virtual_hosts.get(found.virtual_host as usize)
    }

    /// The route found, if any matched.
    pub fn route(&self, found: Found) -> Option<&Arc<Route>> {
        self.virtual_host(found)?.routes.get(found.route? as usize)
    }

    /// Whether the client must be sent to [`redirect::to_https`] with status 301 before any route is taken
    /// (Envoy `require_tls`). `forwarded_proto` is the final `x-forwarded-proto`, `internal` what
    /// `x-envoy-internal` says.
    pub fn wants_https(&self, found: Found, forwarded_proto: &str, internal: bool) -> bool {
        let require = self.virtual_host(found).map(|host| host.require_tls);
        forwarded_proto != "https"
            && match require.unwrap_or_default() {
                RequireTls::None => false,
                RequireTls::ExternalOnly => !internal,
                RequireTls::All => true,
            }
    }

    /// The virtual cluster that counts this request; none if none matches.
    pub fn virtual_cluster(&self, found: Found, head: &RequestHead<'_>) -> Option<&Name> {
        let mut clusters = self.virtual_host(found)?.virtual_clusters.iter();
        let cluster =
            clusters.find(|cluster| cluster.headers.iter().all(|header| header.matches(head)));
        cluster.map(|cluster| &cluster.name)
    }
}

#[cfg(test)]
pub(crate) mod tests;
