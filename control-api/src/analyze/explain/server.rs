//! What the workload's own proxy makes of a request: what it demands, and what policies say.

use anyhow::Result;
use prost::Message;
use xds::envoy::config::rbac::v3::Rbac;
use xds::envoy::config::rbac::v3::rbac::Action;
use xds::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use super::asked::Asked;
use super::chain::{self, Connection, End};
use super::cluster::Target;
use super::origin;
use super::rbac::{self, Seen, Verdict};
use super::report::{Source, Step};
use super::workload::Workload;
use crate::model::Mesh;
use crate::model::kind::Kind;
use crate::translate::index::Index;
use crate::translate::proxy::Proxy;
use crate::translate::{inbound, peer, security};

/// What clients of the mesh offer.
const MESH: [&str; 3] = ["istio-http/1.1", "istio", "istio-peer-exchange"];

/// What becomes of a request at a workload: whether it is let in; none if that depends.
pub(super) fn explain(
    mesh: &Index,
    workload: &Workload<'_>,
    target: &Target,
    asked: &Asked,
    client: &str,
    steps: &mut Vec<Step>,
) -> Result<Option<bool>> {
    let at = [workload.source(mesh)];
    let name = format!("{} at port {}", workload.full_name(), target.port);
    if !workload.has_sidecar() {
        steps.push(Step::new("server", name).note("no sidecar: nothing is checked").from(at));
        return Ok(Some(true));
    }
    let proxy = workload.proxy(mesh)?;
    steps.push(Step::new("server", name).from(at));
    steps.push(demanded(mesh, &proxy, target));
    let (transport, protocols, server_name) = match (target.mtls, asked.is_tls) {
        (true, _) => ("tls", &MESH[..], Some(target.server_name.as_str())),
        (false, true) => ("tls", &["http/1.1"][..], Some(asked.host.as_str())),
        (false, false) => ("raw_buffer", &["http/1.1"][..], None),
    };
    let port = target.port;
    let address = target.address.parse().ok();
    let connection = Connection { address, port, server_name, transport, protocols };
    let listeners = inbound::listeners(mesh, &proxy);
    let own = listeners
        .iter()
        .find(|it| chain::socket(it.address.as_ref()).is_some_and(|(_, number)| number == port));
    let listener = own.or_else(|| listeners.iter().find(|it| it.name == "virtualInbound"));
    let Some(chain) = listener.and_then(|it| chain::chain(it, &connection)) else {
        let step = Step::new("filter chain", "none takes the connection: it is closed");
        steps.push(step.note(if target.mtls { "mTLS is spoken" } else { "no mTLS is spoken" }));
        return Ok(Some(false));
    };
    steps.push(Step::new("filter chain", &*chain.name));
    let principal = target.mtls.then_some(client);
    let mut seen = Seen { asked: None, port, server_name, principal };
    let mut answers = verdicts(mesh, &chain::policies(chain), &seen, steps);
    if let Some(End::Http(manager)) = chain::end(chain) {
        seen.asked = Some(asked);
        tokens(mesh, &proxy, steps);
        answers.extend(requests(mesh, &manager.http_filters, &seen, steps));
    }
    if answers.is_empty() {
        steps.push(Step::new("policies", "none: everything is allowed"));
    }
    Ok(both(&answers))
}

/// Whether all say yes; none if that depends.
pub(super) fn both(answers: &[Option<bool>]) -> Option<bool> {
    if answers.contains(&Some(false)) {
        return Some(false);
    }
    answers.iter().all(Option::is_some).then_some(true)
}

/// What the workload demands of its clients.
fn demanded(mesh: &Mesh, proxy: &Proxy, target: &Target) -> Step {
    let (mode, policy) = peer::deciding(mesh, &proxy.namespace, &proxy.labels, target.port);
    let spoken = if target.mtls { "mTLS is spoken" } else { "no mTLS is spoken" };
    let demanded = format!("{mode:?}").to_uppercase();
    let step = Step::new("mTLS", format!("{demanded}: {spoken}"));
    match policy {
        None => step.note("no PeerAuthentication is for it"),
        Some(policy) => {
            let ports = policy.spec.port_level_mtls.iter().flatten();
            let own = ports.into_iter().any(|(port, _)| *port == target.port);
            let path = if own { "spec.portLevelMtls" } else { "spec.mtls" };
            step.from([origin::source(policy.object, path)])
        }
    }
}

fn tokens(mesh: &Mesh, proxy: &Proxy, steps: &mut Vec<Step>) {
    let policies = security::request_authentications(mesh, proxy);
    if policies.is_empty() {
        return;
    }
    let sources = policies.iter().map(|it| origin::source(it.object, "spec"));
    steps.push(Step::new("tokens", "one that is sent must be good").from(sources));
}

/// What the policies among HTTP filters say.
pub(super) fn requests(
    mesh: &Mesh,
    filters: &[HttpFilter],
    seen: &Seen<'_>,
    steps: &mut Vec<Step>,
) -> Vec<Option<bool>> {
    let mut answers = Vec::new();
    for filter in filters {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
        if any.type_url.ends_with(".ExtAuthz") {
            steps.push(Step::new("policies", "CUSTOM: another service is asked"));
            answers.push(None);
        }
        if !any.type_url.ends_with(".http.rbac.v3.RBAC") {
            continue;
        }
        let Ok(config) = HttpRbac::decode(&*any.value) else { continue };
        answers.extend(verdicts(mesh, config.rules.as_slice(), seen, steps));
    }
    answers
}

fn verdicts(
    mesh: &Mesh,
    rules: &[impl Rules],
    seen: &Seen<'_>,
    steps: &mut Vec<Step>,
) -> Vec<Option<bool>> {
    let mut answers = Vec::new();
    for rules in rules.iter().filter_map(Rules::rules) {
        let verdict = rbac::verdict(rules, seen);
        steps.push(decided(mesh, rules, &verdict, seen.asked.is_some()));
        answers.push(verdict.allowed);
    }
    answers
}

/// What has rules.
trait Rules {
    fn rules(&self) -> Option<&Rbac>;
}

impl Rules for Rbac {
    fn rules(&self) -> Option<&Rbac> {
        Some(self)
    }
}

impl Rules for xds::envoy::extensions::filters::network::rbac::v3::Rbac {
    fn rules(&self) -> Option<&Rbac> {
        self.rules.as_ref()
    }
}

fn decided(mesh: &Mesh, rules: &Rbac, verdict: &Verdict, is_request: bool) -> Step {
    let action = match rules.action() {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Log => "AUDIT",
    };
    let how = if is_request { "403" } else { "the connection is closed" };
    let words = match verdict.allowed {
        Some(true) if verdict.by.is_empty() => "no rule is for it: it goes on".to_owned(),
        Some(true) => "allowed".to_owned(),
        Some(false) if verdict.by.is_empty() => format!("denied: {how}, as no rule allows it"),
        Some(false) => format!("denied: {how}"),
        None => "it depends on what is not known here (a token, an address)".to_owned(),
    };
    let mut sources: Vec<Source> = Vec::new();
    // Where no rule decides, all of them are meant.
    let all = rules.policies.keys().map(String::as_str);
    let by: Vec<&str> = if verdict.by.is_empty() {
        all.collect()
    } else {
        verdict.by.iter().map(|it| &**it).collect()
    };
    for name in by {
        let Some((namespace, name, rule)) = rbac::parts(name) else { continue };
        let object = mesh.get(Kind::AuthorizationPolicy, namespace, name);
        let source = object.map(|it| origin::source(it, &format!("spec.rules[{rule}]")));
        sources.extend(source.filter(|it| !sources.contains(it)));
    }
    Step::new("policies", format!("{action}: {words}")).from(sources)
}
