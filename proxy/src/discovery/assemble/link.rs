//! Links all resources into one snapshot: compiles tables and matchers, builds TLS contexts, fills in endpoints.
//!
//! Pure but for reading certificate files. What did not change is taken over from the last set, pointer and all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use xds::yaml::Error as Located;

use super::adopt;
use super::check;
use super::contexts::{Context, Contexts, Outcome, Place};
use super::endpoints;
use super::extensions;
use super::rates::Rates;
use super::state::{Placed, State, TLS_PATH, chains, cluster_tls};
use crate::cluster::{ClusterSpec, Clusters};
use crate::config::cluster::Cluster;
use crate::config::http::{HttpConnectionManager, RouteSource};
use crate::config::listener::{self, ConnectionLimit, NetworkFilter, TerminalFilter};
use crate::config::route::RouteConfig;
use crate::config::source::ResourceSource;
use crate::config::tls::{CommonTls, DataSource, DownstreamTls, UpstreamTls};
use crate::config::{HashMap, Invalid, Name};
use crate::discovery::dns::{Found, Queries};
use crate::discovery::file::{self, Origin};
use crate::filter_chain::FilterChainMatcher;
use crate::route::RouteTable;
use crate::snapshot::{ConnectionLimiter, FilterChain, Http, Listener, Snapshot, Terminal};
use crate::tls::secrets::Secrets;

/// A snapshot, and what is needed to link the next one.
#[derive(Debug, Default)]
pub(super) struct Linked {
    pub(super) snapshot: Arc<Snapshot>,
    /// Names to resolve for the clusters.
    pub(super) queries: Queries,
    /// Certificate, key and trust files that contexts read, with digests of what was read; none if nothing
    /// could be.
    pub(super) certificate_files: BTreeMap<PathBuf, Option<u64>>,
    /// Why contexts built from older files are still in use.
    pub(super) kept: Vec<Located>,
    /// What is not served yet for want of a secret; it keeps its last version if it has one.
    pub(super) waiting: Vec<Located>,
    tables: BTreeMap<Name, (ResourceSource, Arc<RouteTable>)>,
    servers: Contexts<DownstreamTls>,
    clients: Contexts<UpstreamTls>,
    rates: Rates,
}

/// Links `state`.
///
/// # Errors
/// Everything that does not fit together, with its place in the files.
pub(super) fn link(
    state: &State,
    found: &Found,
    live: Option<&Clusters>,
    last: &Linked,
    version: u64,
) -> Result<Linked, Vec<Located>> {
    let mut linker = Linker {
        state,
        found,
        live,
        last,
        secrets: Secrets::default(),
        next: Linked { rates: last.rates.clone(), ..Linked::default() },
        errors: check::addresses(state),
    };
    let resolver = Arc::clone(&state.bootstrap.config.resolver);
    let mut snapshot = Snapshot { version, resolver, ..Snapshot::default() };
    let mut clusters = BTreeSet::new();
    for placed in state.clusters() {
        clusters.insert(Arc::clone(&placed.value.name));
        let spec = linker.cluster(&placed);
        snapshot.clusters.extend(spec.map(|spec| (Arc::clone(&placed.value.name), spec)));
    }
    for placed in state.listeners() {
        let listener = linker.listener(&placed, &clusters);
        snapshot.listeners.extend(listener.map(|it| (Arc::clone(&placed.value.name), it)));
    }
    let Linker { mut next, mut errors, .. } = linker;
    errors.extend(check::servers(state));
    errors.extend(check::dns_caches(state));
    if !errors.is_empty() {
        return Err(errors);
    }
    snapshot.routes = next
        .tables
        .iter()
        .map(|(name, (_, table))| (Arc::clone(name), Arc::clone(table)))
        .collect();
    snapshot.index_destinations();
    next.snapshot = Arc::new(snapshot);
    Ok(next)
}

struct Linker<'a> {
    state: &'a State,
    found: &'a Found,
    live: Option<&'a Clusters>,
    last: &'a Linked,
    secrets: Secrets,
    next: Linked,
    errors: Vec<Located>,
}

impl Linker<'_> {
    fn cluster(&mut self, placed: &Placed<'_, Cluster>) -> Option<Arc<ClusterSpec>> {
        let Placed { value: config, origin } = placed;
        let config = &self.bound(config);
        let old = self.last.snapshot.clusters.get(&config.name);
        if cluster_tls(config).any(|(path, tls)| self.waits(&tls.common, origin, path)) {
            return old.map(Arc::clone);
        }
        let resolved = endpoints::of(config, self.state, self.found, &mut self.next.queries);
        let assignment = match resolved {
            Ok(assignment) => endpoints::with_leaving(assignment, config, old, self.live),
            Err(error) => {
                self.errors.push(origin.locate(error));
                return None;
            }
        };
        let tls = match &config.tls {
            Some(tls) => Some(self.client_tls(config, TLS_PATH, tls, origin)?),
            None => None,
        };
        let mut match_tls = Vec::new();
        for (index, matched) in config.transport_socket_matches.iter().enumerate() {
            let path = format!("transport_socket_matches[{index}].{TLS_PATH}");
            match_tls.push(match &matched.tls {
                Some(tls) => Some(self.client_tls(config, &path, tls, origin)?),
                None => None,
            });
        }
        if let Some(old) = old
            && old.config == *config
            && old.assignment == assignment
            && same(&old.tls, &tls)
            && old.match_tls.len() == match_tls.len()
            && old.match_tls.iter().zip(&match_tls).all(|(old, new)| same(old, new))
        {
            return Some(Arc::clone(old));
        }
        let assignment = old
            .map(|old| &old.assignment)
            .filter(|old| **old == assignment)
            .map_or(assignment, Arc::clone);
        Some(Arc::new(ClusterSpec { config: Arc::clone(config), assignment, tls, match_tls }))
    }

    /// `config` with the cluster manager's source addresses, unless it has its own.
    fn bound(&self, config: &Arc<Cluster>) -> Arc<Cluster> {
        let mut config = Arc::clone(config);
        let bind = &self.state.bootstrap.config.upstream_bind_config;
        if bind.is_some() && config.connecting.bind.is_none() {
            Arc::make_mut(&mut config).connecting.bind.clone_from(bind);
        }
        config
    }

    fn client_tls(
        &mut self,
        cluster: &Cluster,
        path: &str,
        config: &Arc<UpstreamTls>,
        origin: &Origin,
    ) -> Option<Arc<crate::tls::client::ClientTls>> {
        self.learn_secrets(&config.common);
        let place: Place = (Arc::clone(&cluster.name), path.into());
        let outcome = self.next.clients.link(&self.last.clients, place, config, &self.secrets);
        self.settle::<UpstreamTls>(outcome, &config.common, path, origin)
    }

    fn listener(
        &mut self,
        placed: &Placed<'_, listener::Listener>,
        clusters: &BTreeSet<Name>,
    ) -> Option<Arc<Listener>> {
        let Placed { value: config, origin } = placed;
        for (path, chain) in chains(config) {
            let tls = chain.tls.as_ref().map(|tls| &tls.common);
            if tls.is_some_and(|tls| self.waits(tls, origin, format!("{path}.{TLS_PATH}"))) {
                return self.last.snapshot.listeners.get(&config.name).map(Arc::clone);
            }
        }
        let mut linked = Vec::new();
        for (path, chain) in chains(config) {
            linked.push(self.chain(&config.name, chain, &origin.below(&path), clusters));
        }
        let mut linked: Vec<Arc<FilterChain>> = linked.into_iter().collect::<Option<_>>()?;
        let default_chain = config.default_filter_chain.as_ref().and_then(|_| linked.pop());
        if let Some(old) = self.last.snapshot.listeners.get(&config.name)
            && old.config == **config
            && old.chains.len() == linked.len()
            && old.chains.iter().zip(&linked).all(|(old, new)| Arc::ptr_eq(old, new))
            && same(&old.default_chain, &default_chain)
        {
            return Some(Arc::clone(old));
        }
        let rules: Vec<_> = config.filter_chains.iter().map(|chain| &chain.matcher).collect();
        match FilterChainMatcher::compile(&rules) {
            Ok(matcher) => Some(Arc::new(Listener {
                config: Arc::clone(config),
                matcher,
                chains: linked,
                default_chain,
            })),
            Err(error) => {
                self.errors.push(origin.locate(error));
                None
            }
        }
    }

    fn chain(
        &mut self,
        listener: &Name,
        config: &Arc<listener::FilterChain>,
        origin: &Origin,
        clusters: &BTreeSet<Name>,
    ) -> Option<Arc<FilterChain>> {
        let found = extensions::with_discovered(config, self.state, origin);
        let config = &found.map_err(|errors| self.errors.extend(errors)).ok()?;
        let old = self.last.snapshot.chain(listener, &config.name);
        let tls = match &config.tls {
            Some(tls) => {
                self.learn_secrets(&tls.common);
                let place: Place = (Arc::clone(listener), Arc::clone(&config.name));
                let outcome = self.next.servers.link(&self.last.servers, place, tls, &self.secrets);
                self.settle::<DownstreamTls>(outcome, &tls.common, TLS_PATH, origin).map(Some)
            }
            None => Some(None),
        };
        let terminal = match &config.terminal {
            TerminalFilter::Http(http) => {
                let origin = origin.below(&config.terminal_path());
                let old = old.and_then(|old| old.http());
                self.http(http, old, &origin, clusters).map(Terminal::Http)
            }
            TerminalFilter::Tcp(tcp) => Some(Terminal::Tcp(Arc::clone(tcp))),
        };
        let (tls, terminal) = (tls?, terminal?);
        if let Some(old) = old
            && old.config == *config
            && same(&old.tls, &tls)
            && old.terminal.is(&terminal)
        {
            return Some(Arc::clone(old));
        }
        let limiters = limiters(config, old.map_or(&[], |old| &old.limiters));
        let rates = self.next.rates.of(config, old.map_or(&[], |old| &old.rates));
        let config = Arc::clone(config);
        Some(Arc::new(FilterChain { config, tls, limiters, rates, terminal }))
    }

    fn http(
        &mut self,
        config: &Arc<HttpConnectionManager>,
        old: Option<&Arc<Http>>,
        origin: &Origin,
        clusters: &BTreeSet<Name>,
    ) -> Option<Arc<Http>> {
        let routes = old.and_then(|old| old.routes.as_ref());
        let routes = self.routes(config, routes, origin, clusters)?;
        if let Some(old) = old
            && old.config == *config
            && same(&old.routes, &routes)
        {
            return Some(Arc::clone(old));
        }
        let config = adopt::manager(config, old.map(|old| &*old.config));
        Some(Arc::new(Http::new(config, routes)))
    }

    /// The table of a connection manager: none inside while a discovered one is not there.
    fn routes(
        &mut self,
        http: &HttpConnectionManager,
        old: Option<&Arc<RouteTable>>,
        origin: &Origin,
        clusters: &BTreeSet<Name>,
    ) -> Option<Option<Arc<RouteTable>>> {
        match &http.routes {
            RouteSource::Inline(config) => {
                let validate = config.validate_clusters.unwrap_or(true);
                let known = validate.then_some(clusters);
                self.table(config, old, &origin.below("route_config"), known).map(Some)
            }
            RouteSource::Rds(source) => {
                if let Some((known, table)) = self.next.tables.get(&source.name)
                    && known == source
                {
                    return Some(Some(Arc::clone(table)));
                }
                let Some((config, origin)) = self.state.routes(source) else { return Some(None) };
                let old = self.last.tables.get(&source.name).map(|(_, table)| table);
                let known = config.validate_clusters.unwrap_or(false).then_some(clusters);
                let table = self.table(config, old, origin, known)?;
                let entry = (source.clone(), Arc::clone(&table));
                self.next.tables.insert(Arc::clone(&source.name), entry);
                Some(Some(table))
            }
        }
    }

    /// Compiles a table unless it is the old one. Clusters are looked up only then, as in Envoy: one that
    /// is removed later leaves its routes answering 503.
    fn table(
        &mut self,
        config: &Arc<RouteConfig>,
        old: Option<&Arc<RouteTable>>,
        origin: &Origin,
        clusters: Option<&BTreeSet<Name>>,
    ) -> Option<Arc<RouteTable>> {
        if let Some(old) = old.filter(|old| old.config() == config) {
            return Some(Arc::clone(old));
        }
        let dangling = clusters.map_or_else(Vec::new, |known| check::clusters(config, known));
        if !dangling.is_empty() {
            self.errors.extend(origin.locate_all(dangling));
            return None;
        }
        let config = adopt::table(config, old.map(|old| &**old.config()));
        match RouteTable::compile(config) {
            Ok(table) => Some(Arc::new(table)),
            Err(error) => {
                self.errors.push(origin.locate(error));
                None
            }
        }
    }

    /// Whether `context`, which stands at `path`, needs a secret that is still to come; that is noted.
    fn waits(&mut self, context: &CommonTls, origin: &Origin, path: String) -> bool {
        let waits = self.state.waits_for_agent(context);
        if waits {
            let reason = "its secret has not been obtained yet; see what the agent logs";
            self.next.waiting.push(origin.locate(Invalid::new(path, reason)));
        }
        waits
    }

    /// Makes the secrets that `context` names known to the contexts built from here on.
    fn learn_secrets(&mut self, context: &CommonTls) {
        for name in self.secrets.missing(context) {
            if let Some(secret) = self.state.secret(&name) {
                self.secrets.insert(name, secret.kind.clone());
            }
        }
    }

    fn settle<C: Context>(
        &mut self,
        outcome: Outcome<C::Tls>,
        context: &CommonTls,
        path: &str,
        origin: &Origin,
    ) -> Option<Arc<C::Tls>> {
        for path in self.secrets.files(context) {
            let content = self.secrets.read(&DataSource::File(path.clone())).ok();
            self.next.certificate_files.insert(path, content.map(|bytes| file::digest(&bytes)));
        }
        let locate = |error: Invalid| origin.locate(error.under(path));
        match outcome {
            Outcome::Current(tls) => Some(tls),
            Outcome::Kept(tls, error) => {
                self.next.kept.push(locate(error));
                Some(tls)
            }
            Outcome::Failed(error) => {
                self.errors.push(locate(error));
                None
            }
        }
    }
}

/// The connection limits of a chain; one that did not change goes on with what it has counted.
fn limiters(
    config: &listener::FilterChain,
    old: &[Arc<ConnectionLimiter>],
) -> Vec<Arc<ConnectionLimiter>> {
    let limits = config.filters.iter().filter_map(|filter| match filter {
        NetworkFilter::ConnectionLimit(limit) if limit.enabled => Some(limit),
        _ => None,
    });
    let limiter = |(index, limit): (usize, &Arc<ConnectionLimit>)| {
        let old = old.get(index).filter(|old| old.config() == limit);
        old.map_or_else(|| Arc::new(ConnectionLimiter::new(Arc::clone(limit))), Arc::clone)
    };
    limits.enumerate().map(limiter).collect()
}

fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Whether two sets hold the very same things.
pub(super) fn unchanged(a: &Snapshot, b: &Snapshot) -> bool {
    fn same_map<T>(a: &HashMap<Name, Arc<T>>, b: &HashMap<Name, Arc<T>>) -> bool {
        a.len() == b.len()
            && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| Arc::ptr_eq(a, b)))
    }
    a.resolver == b.resolver
        && same_map(&a.listeners, &b.listeners)
        && same_map(&a.routes, &b.routes)
        && same_map(&a.clusters, &b.clusters)
}
