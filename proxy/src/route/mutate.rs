//! Headers added and removed by the route table, the virtual host, the route and the weighted cluster.
//!
//! Everything that does not depend on the request is made here once: names, constant values, and which
//! levels change anything at all.

mod in_order;

use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

pub use in_order::{change_request, change_response};

use super::{Found, RouteTable, inline};
use crate::config::Invalid;
use crate::config::format::{Facts, HeaderChoice, Operator};
use crate::config::header::{AppendAction, HeaderMutations, HeaderToAdd};
use crate::config::matcher::{HeaderRef, joined};
use crate::config::route::{Action, ClusterSpecifier, Route, RouteConfig};

impl RouteTable {
    /// Changes the headers of the request to forward. `weighted` is the weighted cluster chosen, if any.
    ///
    /// `%REQ(…)%` of an ordinary header reads `headers`, with the changes of earlier levels; every other
    /// operator asks `facts`. The path and host are not headers here: see [`rewrite`](super::rewrite).
    pub fn mutate_request(
        &self,
        found: Found,
        weighted: Option<usize>,
        headers: &mut HeaderMap,
        facts: &dyn Facts,
    ) {
        self.mutate(Message::Request, found, weighted, headers, facts);
    }

    /// Changes the headers of the response to the client, local replies of the route included.
    /// `%RESP(…)%` reads `headers`.
    pub fn mutate_response(
        &self,
        found: Found,
        weighted: Option<usize>,
        headers: &mut HeaderMap,
        facts: &dyn Facts,
    ) {
        self.mutate(Message::Response, found, weighted, headers, facts);
    }

    /// Applies all levels in Envoy's order: the weighted cluster always comes first, so any other overrides it.
    fn mutate(
        &self,
        message: Message,
        found: Found,
        weighted: Option<usize>,
        headers: &mut HeaderMap,
        facts: &dyn Facts,
    ) {
        let Some(number) = found.route else { return };
        let Some(host) = self.mutations.hosts.get(found.virtual_host as usize) else { return };
        let route = host.routes.get(number as usize).and_then(Option::as_deref);
        if let Some(route) = route
            && let Some(cluster) = weighted.and_then(|number| route.clusters.get(number))
        {
            cluster.of(message).apply(message, headers, facts);
        }
        let mut levels =
            [route.map(|route| &route.own), Some(&host.own), Some(&self.mutations.own)];
        if self.config.most_specific_header_mutations_wins {
            levels.reverse();
        }
        for level in levels.into_iter().flatten() {
            level.of(message).apply(message, headers, facts);
        }
    }
}

/// Which message is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Request,
    Response,
}

/// The changes of a whole route table.
#[derive(Debug)]
pub(super) struct TableMutations {
    own: Level,
    hosts: Vec<HostMutations>,
}

#[derive(Debug)]
struct HostMutations {
    own: Level,
    /// One per route; most change nothing.
    routes: Vec<Option<Box<RouteMutations>>>,
}

#[derive(Debug)]
struct RouteMutations {
    own: Level,
    /// One per weighted cluster; empty if none of them changes anything.
    clusters: Vec<Level>,
}

impl TableMutations {
    /// Compiles the changes of every level of `config`.
    pub(super) fn compile(config: &RouteConfig) -> Result<Self, Invalid> {
        let mut hosts = Vec::with_capacity(config.virtual_hosts.len());
        for (number, host) in config.virtual_hosts.iter().enumerate() {
            let at_host = |error: Invalid| error.under(&format!("virtual_hosts[{number}]"));
            let mut routes = Vec::with_capacity(host.routes.len());
            for (number, route) in host.routes.iter().enumerate() {
                let at_route = |error: Invalid| at_host(error.under(&format!("routes[{number}]")));
                routes.push(RouteMutations::compile(route).map_err(at_route)?);
            }
            let own = Level::compile(&host.request_headers, &host.response_headers);
            hosts.push(HostMutations { own: own.map_err(at_host)?, routes });
        }
        Ok(Self { own: Level::compile(&config.request_headers, &config.response_headers)?, hosts })
    }
}

impl RouteMutations {
    fn compile(route: &Route) -> Result<Option<Box<Self>>, Invalid> {
        let own = Level::compile(&route.request_headers, &route.response_headers)?;
        let mut clusters = Vec::new();
        if let Action::Forward(action) = &route.action
            && let ClusterSpecifier::Weighted(weighted) = &action.cluster
        {
            for (number, cluster) in weighted.clusters.iter().enumerate() {
                let level = Level::compile(&cluster.request_headers, &cluster.response_headers);
                let path = format!("route.weighted_clusters.clusters[{number}]");
                clusters.push(level.map_err(|error| error.under(&path))?);
            }
        }
        if clusters.iter().all(Level::is_empty) {
            clusters.clear();
        }
        let empty = own.is_empty() && clusters.is_empty();
        Ok((!empty).then(|| Box::new(Self { own, clusters })))
    }
}

/// The changes of one level, both ways.
#[derive(Debug)]
struct Level {
    request: Changes,
    response: Changes,
}

impl Level {
    fn compile(request: &HeaderMutations, response: &HeaderMutations) -> Result<Self, Invalid> {
        Ok(Self {
            request: Changes::compile(request, "request_headers", inline::of_requests)?,
            response: Changes::compile(response, "response_headers", inline::of_responses)?,
        })
    }

    fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }

    fn of(&self, message: Message) -> &Changes {
        match message {
            Message::Request => &self.request,
            Message::Response => &self.response,
        }
    }
}

/// The changes of one level to one message.
#[derive(Debug)]
struct Changes {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

#[derive(Debug)]
struct Addition {
    header: HeaderToAdd,
    /// Whether an appended value is joined to the one there is.
    inline: bool,
}

impl Changes {
    /// Compiles `mutations`; `field` is the stem of their names in the configuration.
    fn compile(
        mutations: &HeaderMutations,
        field: &str,
        inline: fn(&HeaderName) -> bool,
    ) -> Result<Self, Invalid> {
        if let Some(number) = mutations.remove.iter().position(|name| *name == HOST) {
            let path = format!("{field}_to_remove[{number}]");
            return Err(Invalid::new(path, "the host header cannot be removed"));
        }
        let add = mutations.add.iter().enumerate().map(|(number, header)| {
            let at = |error: Invalid| error.under(&format!("{field}_to_add[{number}].header"));
            Addition::compile(header, inline(&header.name)).map_err(at)
        });
        Ok(Self { remove: mutations.remove.clone(), add: add.collect::<Result<_, _>>()? })
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Removes, then overwrites, then adds. Every value and condition is taken from the headers as they
    /// are after the removals, so additions of one level do not see each other.
    fn apply(&self, message: Message, headers: &mut HeaderMap, facts: &dyn Facts) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut values: SmallVec<[(&Addition, HeaderValue); 4]> = SmallVec::new();
        for addition in &self.add {
            let HeaderToAdd { name, action, .. } = &addition.header;
            let wanted = match action {
                AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
                AppendAction::AddIfAbsent => !headers.contains_key(name),
                AppendAction::OverwriteIfExists => headers.contains_key(name),
            };
            let current = Current { message, headers, facts };
            if wanted && let Some(value) = addition.header.value(&current) {
                values.push((addition, value));
            }
        }
        for (addition, value) in values.iter().filter(|(addition, _)| addition.overwrites()) {
            headers.insert(&addition.header.name, value.clone());
        }
        for (addition, value) in values.into_iter().filter(|(addition, _)| !addition.overwrites()) {
            append(&addition.header.name, value, addition.inline, headers);
        }
    }
}

impl Addition {
    fn compile(header: &HeaderToAdd, inline: bool) -> Result<Self, Invalid> {
        if header.name == HOST {
            let reason = "the host header cannot be changed here; use a host rewrite";
            return Err(Invalid::new("key", reason));
        }
        Ok(Self { header: header.clone(), inline })
    }

    fn overwrites(&self) -> bool {
        match self.header.action {
            AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => false,
            AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists => true,
        }
    }
}

/// Adds `value` beside the field called `name` that there is, or to it if that is `inline`.
fn append(name: &HeaderName, value: HeaderValue, inline: bool, headers: &mut HeaderMap) {
    let present = if inline { joined(headers, name) } else { None };
    let longer = present.filter(|present| !present.is_empty()).and_then(|present| {
        HeaderValue::from_bytes(&[&present, value.as_bytes()].join(&b',')).ok()
    });
    if let Some(longer) = longer {
        headers.insert(name, longer);
    } else {
        headers.append(name, value);
    }
}

/// Facts whose headers of the changed message are those on their way, not those that came in.
struct Current<'a> {
    message: Message,
    headers: &'a HeaderMap,
    facts: &'a dyn Facts,
}

impl Facts for Current<'_> {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match (self.message, operator) {
            (Message::Request, Operator::Req(choice))
            | (Message::Response, Operator::Resp(choice)) => {
                let HeaderChoice { first, second } = choice;
                self.write_header(first, out)
                    || second.as_ref().is_some_and(|second| self.write_header(second, out))
            }
            _ => self.facts.write(operator, out),
        }
    }
}

impl Current<'_> {
    fn write_header(&self, header: &HeaderRef, out: &mut Vec<u8>) -> bool {
        if let HeaderRef::Named(name) = header {
            let value = self.headers.get(name);
            out.extend_from_slice(value.map_or(&[], HeaderValue::as_bytes));
            return value.is_some();
        }
        let choice = HeaderChoice { first: header.clone(), second: None };
        let operator = match self.message {
            Message::Request => Operator::Req(choice),
            Message::Response => Operator::Resp(choice),
        };
        self.facts.write(&operator, out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::header::HeaderName;
    use http::{HeaderMap, HeaderValue};

    use crate::config::format::Format;
    use crate::config::header::HeaderText;
    use crate::config::header::{AppendAction, HeaderMutations, HeaderToAdd};
    use crate::config::route::{
        Action, ClusterSpecifier, RandomValue, RouteConfig, WeightedCluster, WeightedClusters,
    };
    use crate::route::tests::{
        FewFacts, compile, forward, get, on_path, one_host, prefix, route, weighted,
    };
    use crate::route::{Circumstances, RouteTable};

    use AppendAction::{
        AddIfAbsent, AppendIfExistsOrAdd as Append, OverwriteIfExists,
        OverwriteIfExistsOrAdd as Overwrite,
    };

    fn add(name: &str, value: &str, action: AppendAction) -> HeaderToAdd {
        let name = HeaderName::try_from(name).unwrap();
        let value = HeaderText::new(Format::parse(value).unwrap()).unwrap();
        HeaderToAdd { name, value, action, keep_empty: false }
    }

    fn adds(add: Vec<HeaderToAdd>) -> HeaderMutations {
        HeaderMutations { add, remove: Vec::new() }
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// One virtual host with one route to one weighted cluster, each level adding `x-o` and setting `x-w`.
    fn four_levels() -> RouteConfig {
        let level = |name| adds(vec![add("x-o", name, Append), add("x-w", name, Overwrite)]);
        let mut config = one_host([]);
        let cluster = WeightedCluster {
            request_headers: level("cluster"),
            response_headers: level("cluster"),
            ..weighted("c", 1)
        };
        let clusters = vec![cluster];
        let weighted = WeightedClusters { clusters, total: 1, random_value: RandomValue::Drawn };
        let mut only = route(on_path(prefix("/")));
        only.action = Action::Forward(Box::new(forward(ClusterSpecifier::Weighted(weighted))));
        only.request_headers = level("route");
        only.response_headers = level("route");
        config.virtual_hosts[0].routes = vec![Arc::new(only)];
        config.virtual_hosts[0].request_headers = level("host");
        config.virtual_hosts[0].response_headers = level("host");
        config.request_headers = level("table");
        config.response_headers = level("table");
        config
    }

    fn mutated(table: &RouteTable, mut headers: HeaderMap) -> HeaderMap {
        let found = table.find(&get("/", &HeaderMap::new()), 0, Circumstances::default()).unwrap();
        table.mutate_request(found, Some(0), &mut headers, &FewFacts);
        headers
    }

    /// `headers` after `mutations` of a route table whose other levels change nothing.
    fn changed(mutations: HeaderMutations, headers: HeaderMap) -> HeaderMap {
        let config = RouteConfig { request_headers: mutations, ..one_host([on_path(prefix("/"))]) };
        mutated(&compile(config), headers)
    }

    #[test]
    fn the_table_has_the_last_word_unless_the_most_specific_wins() {
        let mut config = four_levels();
        let headers = mutated(&compile(config.clone()), map(&[("x-o", "client")]));
        assert_eq!(values(&headers, "x-o"), ["client", "cluster", "route", "host", "table"]);
        assert_eq!(values(&headers, "x-w"), ["table"]);
        config.most_specific_header_mutations_wins = true;
        let headers = mutated(&compile(config), map(&[]));
        assert_eq!(values(&headers, "x-o"), ["cluster", "table", "host", "route"]);
        assert_eq!(values(&headers, "x-w"), ["route"]);
    }

    #[test]
    fn responses_change_by_their_own_lists() {
        let table = compile(four_levels());
        let found = table.find(&get("/", &HeaderMap::new()), 0, Circumstances::default()).unwrap();
        let mut headers = HeaderMap::new();
        table.mutate_response(found, Some(0), &mut headers, &FewFacts);
        assert_eq!(values(&headers, "x-o"), ["cluster", "route", "host", "table"]);
        headers.clear();
        table.mutate_response(found, None, &mut headers, &FewFacts);
        assert_eq!(values(&headers, "x-o"), ["route", "host", "table"]);
    }

    #[test]
    fn without_a_route_nothing_changes() {
        let mut config = four_levels();
        config.virtual_hosts[0].routes.clear();
        assert!(mutated(&compile(config), map(&[])).is_empty());
    }

    #[test]
    fn removal_comes_first_and_overwriting_before_adding() {
        let mutations = HeaderMutations {
            add: vec![
                add("x-mix", "first", Append),
                add("x-mix", "over", Overwrite),
                add("x-twice", "a", AddIfAbsent),
                add("x-twice", "b", AddIfAbsent),
                add("x-there", "new", AddIfAbsent),
                add("x-there-too", "new", OverwriteIfExists),
                add("x-absent", "new", OverwriteIfExists),
                add("x-gone", "new", AddIfAbsent),
            ],
            remove: vec![HeaderName::from_static("x-gone")],
        };
        let before =
            [("x-mix", "old"), ("x-there", "old"), ("x-there-too", "old"), ("x-gone", "old")];
        let headers = changed(mutations, map(&before));
        assert_eq!(values(&headers, "x-mix"), ["over", "first"]);
        assert_eq!(values(&headers, "x-twice"), ["a", "b"]);
        assert_eq!(values(&headers, "x-there"), ["old"]);
        assert_eq!(values(&headers, "x-there-too"), ["new"]);
        assert_eq!(values(&headers, "x-absent"), [""; 0]);
        assert_eq!(values(&headers, "x-gone"), ["new"]);
    }

    #[test]
    fn some_headers_are_a_single_field() {
        let mutations = adds(vec![
            add("user-agent", "b", Append),
            add("via", "b", Append),
            add("vary", "b", Append),
        ]);
        let headers = changed(mutations, map(&[("user-agent", "a"), ("vary", "a")]));
        assert_eq!(values(&headers, "user-agent"), ["a,b"]);
        assert_eq!(values(&headers, "via"), ["b"]);
        assert_eq!(values(&headers, "vary"), ["a", "b"]);
    }

    #[test]
    fn formats_see_the_headers_as_they_are_before_the_level_adds() {
        let mut kept = add("x-kept", "%REQ(x-missing)%", Append);
        kept.keep_empty = true;
        let mutations = adds(vec![
            add("x-o", "added", Append),
            add("x-copy", "%REQ(x-o?x-second)%", Append),
            add("x-host", "%REQ(:authority)%", Append),
            add("x-none", "%REQ(x-missing)%", Append),
            kept,
        ]);
        let headers = changed(mutations.clone(), map(&[("x-o", "1"), ("x-o", "2")]));
        assert_eq!(values(&headers, "x-copy"), ["1"]);
        assert_eq!(values(&headers, "x-host"), ["facts.host"]);
        assert_eq!(values(&headers, "x-none"), [""; 0]);
        assert_eq!(values(&headers, "x-kept"), [""]);
        let headers = changed(mutations, map(&[("x-second", "2nd")]));
        assert_eq!(values(&headers, "x-copy"), ["2nd"]);
    }

    #[test]
    fn the_host_is_not_a_header_to_change() {
        let mut config = four_levels();
        config.request_headers = adds(vec![add("host", "x", Append)]);
        let error = RouteTable::compile(Arc::new(config.clone())).unwrap_err();
        assert_eq!(error.path, "request_headers_to_add[0].header.key");
        config.request_headers.add.clear();
        config.request_headers.remove = vec![HeaderName::from_static("host")];
        let error = RouteTable::compile(Arc::new(config)).unwrap_err();
        assert_eq!(error.path, "request_headers_to_remove[0]");
    }
}
