//! Which virtual host and route an HTTP request takes.

use std::net::SocketAddr;

use super::asked::Asked;
use super::cluster::Bound;
use super::head;
use super::report::{Choice, Other, Step};
use super::words;
use crate::config::http::RouteSource;
use crate::config::matcher::RequestHead;
use crate::config::route::{Action, ClusterSpecifier, RouteAction, VirtualHost};
use crate::discovery::{Assembler, Written};
use crate::route::{Circumstances, Found, RouteTable, redirect, rewrite, weighted};
use crate::snapshot::Http;

/// Where a request goes, or what it is answered.
pub(super) enum Verdict {
    /// To a cluster.
    Forward(Bound),
    /// Nowhere: the proxy answers by itself, as configured.
    Answer(String),
    /// Nowhere: the proxy refuses it.
    Refuse(String),
}

/// Everything that a route is chosen by.
struct Question<'a> {
    assembler: &'a Assembler,
    http: &'a Http,
    /// The chain, and the path of its connection manager from the listener's root.
    listener: &'a str,
    manager: &'a str,
    head: RequestHead<'a>,
    /// Whether it counts as internal.
    internal: bool,
    random: u64,
}

/// The steps through the connection manager at path `manager` of `listener`, whose address is `local`.
pub(super) fn explain(
    assembler: &Assembler,
    http: &Http,
    (listener, local, manager): (&str, SocketAddr, &str),
    asked: &Asked,
    random: u64,
) -> (Vec<Step>, Verdict) {
    let Some(table) = &http.routes else {
        let verdict = "404 (route_not_found): the route table has not arrived".to_owned();
        return (Vec::new(), Verdict::Refuse(verdict));
    };
    let head = match head::admitted(asked, &http.config, table, local) {
        Ok(head) => head,
        Err(verdict) => return (Vec::new(), verdict),
    };
    let (head, internal) = (head.view(&asked.method), head.internal);
    Question { assembler, http, listener, manager, head, internal, random }.answer(table)
}

impl Question<'_> {
    fn answer(&self, table: &RouteTable) -> (Vec<Step>, Verdict) {
        let circumstances = Circumstances::default();
        let found = table.find(&self.head, self.random, circumstances);
        let hosts = self.virtual_hosts(table, found);
        let Some(found) = found else {
            let why =
                format!("404 (route_not_found): no virtual host takes {}", self.head.authority);
            return (vec![hosts], Verdict::Refuse(why));
        };
        if table.wants_https(found, self.head.scheme, self.internal) {
            let location = redirect::to_https(&self.head);
            let why = format!("301 to {location}: the virtual host's require_tls");
            return (vec![hosts], Verdict::Answer(why));
        }
        let (routes, verdict) = self.routes(table, found);
        (vec![hosts, routes], verdict)
    }

    fn virtual_hosts(&self, table: &RouteTable, found: Option<Found>) -> Step {
        let taken = found.and_then(|found| table.virtual_host(found));
        let mut step = Step { kind: "virtual host", ..Step::default() };
        for (at, host) in table.config().virtual_hosts.iter().enumerate() {
            let place = self.place(&format!("virtual_hosts[{at}]"));
            let name = host.name.to_string();
            let domains = format!("its domains are [{}]", host.domains.join(", "));
            if taken.is_some_and(|taken| std::ptr::eq(taken, host)) {
                step.taken = Some(Choice { name, place, details: vec![domains] });
            } else {
                let why = self.why_not(host).unwrap_or(domains);
                step.others.push(Other { name, place, why });
            }
        }
        step
    }

    fn why_not(&self, host: &VirtualHost) -> Option<String> {
        let authority = self.head.authority;
        if let Some(domain) = covering(host, authority) {
            return Some(format!("its {domain} is less specific"));
        }
        let (name, port) = authority.rsplit_once(':')?;
        let domain = covering(host, name)?;
        Some(format!("its {domain} is without port {port}: see ignore_port_in_host_matching"))
    }

    fn routes(&self, table: &RouteTable, found: Found) -> (Step, Verdict) {
        let mut step = Step { kind: "route", ..Step::default() };
        let taken = found.place();
        let mismatches = table.mismatches(found, &self.head, self.random, Circumstances::default());
        let Some(host) = table.virtual_host(found) else {
            return (step, Verdict::Refuse(String::new()));
        };
        let host_at =
            table.config().virtual_hosts.iter().position(|it| std::ptr::eq(it, host)).unwrap_or(0);
        for (at, (route, mismatch)) in host.routes.iter().zip(mismatches).enumerate() {
            let place = self.place(&format!("virtual_hosts[{host_at}].routes[{at}]"));
            let conditions = words::route(&route.matcher);
            let name = match &*route.name {
                "" => format!("[{at}] {conditions}"),
                name => format!("[{at}] {name}: {conditions}"),
            };
            if taken.is_some_and(|(_, route)| route == at) {
                step.taken = Some(Choice { name, place, details: Vec::new() });
            } else if let Some(mismatch) = mismatch {
                let why = words::why_not(&route.matcher, mismatch, &self.head);
                step.others.push(Other { name, place, why });
            } else {
                let why = "it matches too, but comes later".to_owned();
                step.others.push(Other { name, place, why });
            }
        }
        let verdict = self.verdict(table, found);
        (step, verdict)
    }

    fn verdict(&self, table: &RouteTable, found: Found) -> Verdict {
        let Some(route) = table.route(found) else {
            let why = "404 (route_not_found): no route of the virtual host matches".to_owned();
            return Verdict::Refuse(why);
        };
        match &route.action {
            Action::Redirect(to) => {
                let location = redirect::location(to, &route.matcher, &self.head, self.head.scheme);
                Verdict::Answer(format!("{} to {location}", to.status.as_u16()))
            }
            Action::DirectResponse(response) => {
                Verdict::Answer(format!("{} (direct_response)", response.status.as_u16()))
            }
            Action::Forward(action) => self.forward(table, found, action),
        }
    }

    fn forward(&self, table: &RouteTable, found: Found, action: &RouteAction) -> Verdict {
        let target = weighted::target(action, &self.head, None, self.random);
        let mut why = Vec::new();
        let mut chosen = None;
        if let ClusterSpecifier::Weighted(clusters) = &action.cluster {
            chosen = target.weighted.and_then(|number| clusters.clusters.get(number));
            for (number, cluster) in clusters.clusters.iter().enumerate() {
                let marker = if Some(number) == target.weighted { " (this time)" } else { "" };
                why.push(format!(
                    "{} of {}: {:?}{marker}",
                    cluster.weight, clusters.total, cluster.target
                ));
            }
        }
        let mut headers = self.head.headers.clone();
        table.mutate_request(found, target.weighted, &mut headers, &Nobody);
        let changed = RequestHead { headers: &headers, ..self.head };
        let host = rewrite::host(action, chosen, &changed, &Nobody)
            .map_or_else(|| self.head.authority.to_owned(), |host| host.name.into_owned());
        let path = table.route(found).and_then(|route| {
            rewrite::path(&route.matcher, &action.path_rewrite, &changed, &Nobody)
        });
        let path = path.as_deref().unwrap_or(self.head.path_and_query);
        let request = format!("{} {path} for {host}", self.head.method);
        let own = chosen.and_then(|chosen| chosen.metadata_match.clone());
        let wanted = own.or_else(|| action.metadata_match.clone());
        let missing = format!("{} (cluster_not_found)", action.cluster_not_found_status.as_u16());
        let cluster = target.cluster.to_owned();
        Verdict::Forward(Bound { cluster, wanted, why, request, missing })
    }

    /// Where a part of the route table is written.
    fn place(&self, path: &str) -> String {
        match &self.http.config.routes {
            RouteSource::Rds(source) => self.assembler.place(Written::Routes(source), path),
            _ => {
                let path = format!("{}.route_config.{path}", self.manager);
                self.assembler.place(Written::Listener(self.listener), &path)
            }
        }
    }
}

/// Facts of a request that nobody has sent: there are none.
struct Nobody;

impl crate::config::format::Facts for Nobody {
    fn write(&self, _: &crate::config::format::Operator, _: &mut Vec<u8>) -> bool {
        false
    }
}

/// The domain of `host` that covers `authority`.
fn covering<'a>(host: &'a VirtualHost, authority: &str) -> Option<&'a str> {
    let authority = authority.to_ascii_lowercase();
    let covers = |domain: &&String| {
        let domain = domain.to_ascii_lowercase();
        match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(suffix), _) => authority.ends_with(suffix),
            (None, Some(prefix)) => authority.starts_with(prefix),
            (None, None) => authority == domain,
        }
    };
    host.domains.iter().find(covers).map(String::as_str)
}
