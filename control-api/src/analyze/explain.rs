//! How a request fares, step by step, and which line of which file says so: what the control plane tells the client's
//! proxy and the server's is walked through as they would do it. Nothing is sent.

mod asked;
mod chain;
mod cluster;
mod imagine;
mod matching;
mod origin;
mod rbac;
pub mod report;
mod route;
mod server;
mod workload;

use std::sync::Arc;

use anyhow::Result;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Manager;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as ToCluster;

use self::asked::Asked;
use self::chain::{Connection, End};
use self::cluster::Target;
use self::rbac::Seen;
use self::report::{Report, Step};
use self::workload::Workload;
use crate::model::Mesh;
use crate::translate::endpoints::Endpoint;
use crate::translate::index::Index;
use crate::translate::proxy::{Proxy, Role};
use crate::translate::resources::{Resources, resources};
use crate::translate::scope;
use crate::translate::service::{ANY_ADDRESS, Resolution, Service};

/// How many servers are looked at.
const SERVERS: usize = 8;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Who asks: `NAME.NAMESPACE` of a workload.
    pub from: String,
    /// The request's method.
    pub method: String,
    /// Where it goes.
    pub url: String,
    /// Its headers, `NAME: VALUE`.
    pub headers: Vec<String>,
}

/// How a request of a workload fares in a mesh that only files tell of: each Deployment stands for one pod.
///
/// # Errors
/// The workload is not known, or the request is none.
pub fn offline(mesh: &Mesh, question: &Question) -> Result<Report> {
    explain(&Index::new(imagine::with_pods(mesh)), None, question)
}

/// How a request of a workload fares. `connected` is the workload's proxy, if it is connected.
///
/// # Errors
/// The workload is not known, or the request is none.
pub fn explain(mesh: &Index, connected: Option<Proxy>, question: &Question) -> Result<Report> {
    let asked = Asked::new(&question.method, &question.url, &question.headers)?;
    let workload = Workload::named(mesh, &question.from);
    let (proxy, object, is_bare) = match connected {
        Some(proxy) => (proxy, workload.ok().map(|it| it.object), false),
        None => {
            let workload = workload?;
            let proxy = workload.proxy(mesh)?;
            let is_bare = proxy.role == Role::Sidecar && !workload.has_sidecar();
            (proxy, Some(workload.object), is_bare)
        }
    };
    let from = object.map(|it| origin::source(it, ""));
    let first = Step::new("client", workload::shown(mesh, &proxy)).from(from);
    let walk = Walk {
        told: resources(mesh, &proxy),
        services: scope::visible(mesh, &proxy),
        mesh,
        proxy: &proxy,
        asked: &asked,
        steps: vec![first],
        answers: Vec::new(),
    };
    let request = format!("{} {} from {}", asked.method, question.url, question.from);
    walk.report(request, is_bare)
}

/// A request on its way.
struct Walk<'a> {
    mesh: &'a Index,
    proxy: &'a Proxy,
    told: Resources,
    services: Vec<Arc<Service>>,
    asked: &'a Asked,
    steps: Vec<Step>,
    /// Whether it is let through where policies were asked; none where that depends.
    answers: Vec<Option<bool>>,
}

impl<'a> Walk<'a> {
    fn report(mut self, request: String, is_bare: bool) -> Result<Report> {
        if is_bare {
            let (result, served) = self.straight()?;
            return Ok(Report { request, steps: self.steps, result, served });
        }
        let result = match self.route() {
            route::End::Clusters(clusters) => self.follow(&clusters)?,
            route::End::Answer(answer) => (answer, true),
            route::End::Nowhere(why) => (why, false),
        };
        Ok(Report { request, steps: self.steps, result: result.0, served: result.1 })
    }

    /// Where the client's proxy sends it.
    fn route(&mut self) -> route::End {
        let service = self.service();
        if self.proxy.role == Role::Sidecar {
            self.steps.push(match &service {
                Some(it) => self.known(it),
                None => Step::new("service", format!("none is called {}", self.asked.host)),
            });
        }
        let own = service.and_then(|it| self.address(&it));
        let connection = Connection {
            address: self.asked.address().or(own),
            port: self.listened(),
            server_name: self.asked.is_tls.then_some(self.asked.authority()),
            transport: if self.asked.is_tls { "tls" } else { "raw_buffer" },
            protocols: &["http/1.1"],
        };
        let listener = chain::outbound(&self.told.listeners, &connection);
        let Some(listener) = listener else {
            return route::End::Nowhere(format!("nothing listens at port {}", connection.port));
        };
        self.steps.push(Step::new("listener", &*listener.name));
        let Some(chain) = chain::chain(listener, &connection) else {
            return route::End::Nowhere("no filter chain takes the connection".to_owned());
        };
        if !chain.name.is_empty() {
            self.steps.push(Step::new("filter chain", &*chain.name));
        }
        match chain::end(chain) {
            Some(End::Http(manager)) => self.by_request(&manager),
            Some(End::Tcp(proxy)) => route::End::Clusters(of_connection(&proxy)),
            None => route::End::Nowhere("the filter chain does nothing".to_owned()),
        }
    }

    fn by_request(&mut self, manager: &Manager) -> route::End {
        let (mesh, proxy, asked) = (self.mesh, self.proxy, self.asked);
        let seen =
            Seen { asked: Some(asked), port: asked.port, server_name: None, principal: None };
        let answers = server::requests(mesh, &manager.http_filters, &seen, &mut self.steps);
        if answers.contains(&Some(false)) {
            return route::End::Nowhere("denied: 403 by the client's own proxy".to_owned());
        }
        self.answers.extend(answers);
        let routes = match &manager.route_specifier {
            Some(RouteSpecifier::RouteConfig(routes)) => Some(routes),
            Some(RouteSpecifier::Rds(rds)) => {
                self.told.routes.iter().find(|it| it.name == rds.route_config_name)
            }
            _ => None,
        };
        match routes {
            Some(routes) => route::choose(mesh, proxy, routes, asked, &mut self.steps),
            None => route::End::Nowhere("404: there are no routes".to_owned()),
        }
    }

    /// What becomes of it behind these clusters, and whether that is good.
    fn follow(&mut self, clusters: &[(String, Option<u32>)]) -> Result<(String, bool)> {
        let (mut names, mut targets, mut reached) = (Vec::new(), Vec::new(), false);
        for (name, weight) in clusters {
            let (mesh, proxy, services) = (self.mesh, self.proxy, &self.services);
            let (step, found) = cluster::explain(mesh, proxy, &self.told, services, name, *weight);
            self.steps.push(step);
            names.push(weight.map_or_else(|| name.clone(), |it| format!("{name} ({it})")));
            reached |= found.is_some() && name != "BlackHoleCluster";
            targets.extend(found.into_iter().flatten());
        }
        let to = format!("goes to {}", names.join(", "));
        if reached { self.ask(to, &targets) } else { Ok((format!("503: {to}"), false)) }
    }

    /// Without a sidecar, it goes where DNS says, as it is.
    fn straight(&mut self) -> Result<(String, bool)> {
        self.steps.push(Step::new("sidecar", "none: it connects to the service itself"));
        let Some(service) = self.service() else {
            return Ok((format!("leaves the mesh for {}", self.asked.host), true));
        };
        self.steps.push(self.known(&service));
        let port = service.ports.iter().find(|it| it.number == self.asked.port);
        let Some(port) = port else {
            return Ok((format!("{} has no such port", service.host), false));
        };
        let endpoints = self.mesh.endpoints(&service, port).iter();
        let target = |it: &Endpoint| Target {
            address: it.address.clone(),
            port: it.port,
            mtls: false,
            server_name: String::new(),
        };
        let targets: Vec<Target> = endpoints.map(target).collect();
        self.ask(format!("goes to {}", service.host), &targets)
    }

    /// What the workloads behind these endpoints say.
    fn ask(&mut self, to: String, targets: &[Target]) -> Result<(String, bool)> {
        let client = workload::identity(self.mesh, self.proxy);
        let mut known: Vec<String> = Vec::new();
        let mut servers: Vec<Option<bool>> = Vec::new();
        for target in targets {
            let Some(workload) = self.server(target, &known) else { continue };
            known.push(workload.full_name());
            let (mesh, asked) = (self.mesh, self.asked);
            let steps = &mut self.steps;
            servers.push(server::explain(mesh, &workload, target, asked, &client, steps)?);
        }
        let denied = servers.iter().filter(|it| **it == Some(false)).count();
        if denied > 0 {
            let all = servers.len();
            let how = if denied == all { String::new() } else { format!("by {denied} of {all}, ") };
            return Ok((format!("denied {how}as it {to}"), false));
        }
        self.answers.extend(servers);
        Ok(match server::both(&self.answers) {
            Some(_) => (to, true),
            None => (format!("{to}, if policies that look at more than this allow it"), true),
        })
    }

    /// The workload behind an endpoint, unless it was asked before or there were many.
    fn server(&self, target: &Target, asked: &[String]) -> Option<Workload<'a>> {
        let found = Workload::at(self.mesh, &target.address)?;
        (asked.len() < SERVERS && !asked.contains(&found.full_name())).then_some(found)
    }

    fn known(&self, service: &Service) -> Step {
        let step = Step::new("service", &*service.host).from([origin::source(&service.object, "")]);
        let ports = service.ports.iter().map(|it| it.number.to_string());
        let ports: Vec<String> = ports.collect();
        let wanted = self.asked.port.to_string();
        if ports.contains(&wanted) {
            return step;
        }
        step.note(format!("it has no port {wanted}, but {}", ports.join(", ")))
    }

    /// The service that the client means: by the names that its DNS completes, or by the address.
    fn service(&self) -> Option<Arc<Service>> {
        let wanted = self.asked.host.trim_end_matches('.');
        let namespace = &self.proxy.namespace;
        let domain = crate::model::host::SERVICE_DOMAIN;
        let suffixes = [
            String::new(),
            format!(".{namespace}.{domain}"),
            format!(".{domain}"),
            ".cluster.local".into(),
        ];
        let names = suffixes.map(|it| format!("{wanted}{it}"));
        let exact = names.iter().find_map(|name| self.services.iter().find(|it| it.host == *name));
        let by_address =
            || self.services.iter().find(|it| it.addresses.iter().any(|it| it == wanted));
        let covers = |it: &&Arc<Service>| crate::model::host::covers(&it.host, wanted);
        exact.or_else(by_address).or_else(|| self.services.iter().find(covers)).cloned()
    }

    /// Where DNS sends the client: the service's own address, or one of its endpoints'.
    fn address(&self, service: &Service) -> Option<std::net::IpAddr> {
        let own = service.addresses.iter().find(|it| *it != ANY_ADDRESS);
        if let Some(own) = own.and_then(|it| it.parse().ok()) {
            return Some(own);
        }
        let port =
            service.ports.first().filter(|_| service.resolution == Resolution::Passthrough)?;
        self.mesh.endpoints(service, port).first()?.address.parse().ok()
    }

    /// The port that the proxy listens at: a gateway's service may have another one than its workload.
    fn listened(&self) -> u32 {
        let wanted = self.asked.port;
        if self.proxy.role == Role::Sidecar {
            return wanted;
        }
        let own = self.services.iter().find_map(|service| {
            let port = service.ports.iter().find(|it| it.number == wanted)?;
            let all = self.mesh.endpoints(service, port);
            let found = all.iter().find(|it| self.proxy.addresses.contains(&it.address));
            found.map(|it| it.port)
        });
        own.unwrap_or(wanted)
    }
}

/// The clusters that connections are shared among.
fn of_connection(proxy: &TcpProxy) -> Vec<(String, Option<u32>)> {
    match &proxy.cluster_specifier {
        Some(ToCluster::Cluster(name)) => vec![(name.clone(), None)],
        Some(ToCluster::WeightedClusters(all)) => {
            all.clusters.iter().map(|it| (it.name.clone(), Some(it.weight))).collect()
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
