//! What a route is attached to: the listeners that it names and that take it, or services of the mesh.

use std::sync::Arc;

use super::listeners::Listening;
use super::{Problems, unmet};
use crate::model::Mesh;
use crate::model::gateway_api::reference::{GROUP, ParentReference};
use crate::model::host;
use crate::model::kind::{Kind, Spec};
use crate::model::object::Object;
use crate::translate::virtual_services::MESH;

/// What routes of all kinds have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'m> {
    pub(super) object: &'m Arc<Object>,
    pub(super) parents: &'m [ParentReference],
    pub(super) hostnames: &'m [String],
}

/// One thing that a route is attached to.
#[derive(Debug, Clone)]
pub(super) struct Parent<'a> {
    /// The gateway, `NAMESPACE/NAME`, or `mesh`.
    pub(super) gateway: String,
    /// The listener; none for a service of the mesh.
    pub(super) listening: Option<&'a Listening>,
    /// The port of the service that is asked for.
    pub(super) port: Option<u16>,
    /// The hosts that the route is for there.
    pub(super) hosts: Vec<String>,
}

impl<'m> Route<'m> {
    fn kind(&self) -> &'m str {
        &self.object.type_meta.kind
    }

    fn namespace(&self) -> &'m str {
        &self.object.metadata.namespace
    }

    /// Its hosts; `*` for all.
    fn hosts(&self) -> Vec<String> {
        if self.hostnames.is_empty() {
            return vec!["*".to_owned()];
        }
        self.hostnames.iter().map(|it| it.to_ascii_lowercase()).collect()
    }

    /// Everything that it is attached to, by name.
    pub(super) fn attached<'a>(
        &self,
        mesh: &'m Mesh,
        listeners: &'a [Listening],
        problems: &mut Problems<'m>,
    ) -> Vec<Parent<'a>> {
        let mut all: Vec<Parent<'a>> = Vec::new();
        for (index, reference) in self.parents.iter().enumerate() {
            let found = match (reference.group.as_str(), reference.kind.as_str()) {
                (GROUP, "Gateway" | "ListenerSet") => self.at_gateway(reference, listeners),
                ("" | "core", "Service") => self.at_service(mesh, reference),
                ("networking.istio.io", "ServiceEntry") => self.at_entry(mesh, reference),
                (group, kind) => {
                    Err((unmet::NO_PARENT, format!("{kind} of {group:?} takes no routes here")))
                }
            };
            match found {
                // A listener may be named more than once.
                Ok(found) => all.extend(found),
                Err((condition, why)) => {
                    let path = format!("spec.parentRefs[{index}]");
                    problems.add(self.object, &path, condition, &why);
                }
            }
        }
        all.sort_by(|one, other| one.gateway.cmp(&other.gateway));
        all.dedup_by(|one, other| {
            one.gateway == other.gateway && one.port == other.port && one.hosts == other.hosts
        });
        all
    }

    fn at_gateway<'a>(
        &self,
        reference: &ParentReference,
        listeners: &'a [Listening],
    ) -> Result<Vec<Parent<'a>>, (&'static str, String)> {
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace());
        let is_meant = |it: &&Listening| {
            let metadata = &it.object.metadata;
            it.object.type_meta.kind == reference.kind
                && metadata.name == reference.name
                && metadata.namespace == namespace
        };
        let own: Vec<_> = listeners.iter().filter(is_meant).collect();
        if own.is_empty() {
            let why = format!("there is no {} {namespace}/{}", reference.kind, reference.name);
            return Err((unmet::NO_PARENT, why));
        }
        let mut accepted = Vec::new();
        let mut refused = None;
        for listening in &own {
            match self.refused(reference, listening) {
                None => accepted.push(self.parent(listening, &own)),
                // Told is what comes nearest to being taken.
                Some(why) => refused = refused.max(Some(why)),
            }
        }
        match refused {
            Some((_, condition, why)) if accepted.is_empty() => Err((condition, why)),
            _ => Ok(accepted),
        }
    }

    /// Why a listener does not take it, with how far it came.
    fn refused(
        &self,
        reference: &ParentReference,
        listening: &Listening,
    ) -> Option<(u8, &'static str, String)> {
        let listener = &listening.listener;
        if let Some(port) = reference.port.filter(|port| u32::from(*port) != listener.port) {
            return Some((0, unmet::NO_PARENT, format!("no listener has port {port}")));
        }
        if let Some(name) = reference.section_name.as_ref().filter(|it| **it != listener.name) {
            return Some((0, unmet::NO_PARENT, format!("no listener is called {name:?}")));
        }
        if !listening.kinds.contains(&self.kind()) {
            let why = format!("listener {:?} does not take {}s", listener.name, self.kind());
            return Some((1, unmet::NOT_ALLOWED, why));
        }
        let mut from = listening.server.hosts.iter().filter_map(|it| it.split_once('/'));
        if !from.any(|(namespace, _)| namespace == "*" || namespace == self.namespace()) {
            let (name, namespace) = (&listener.name, self.namespace());
            let why = format!("listener {name:?} does not take routes of namespace {namespace}");
            return Some((1, unmet::NOT_ALLOWED, why));
        }
        let hostname = listening.hostname()?;
        if !self.hosts().iter().any(|it| host::overlap(it, hostname)) {
            let why = format!("listener {:?} is for {hostname} alone", listener.name);
            return Some((2, unmet::NO_HOSTNAME, why));
        }
        None
    }

    /// The hosts that no other listener of the same port is closer to.
    fn parent<'a>(&self, listening: &'a Listening, own: &[&Listening]) -> Parent<'a> {
        let hostname = listening.hostname();
        let others: Vec<&str> = own
            .iter()
            .filter(|it| it.listener.port == listening.listener.port)
            .filter(|it| it.listener.protocol == listening.listener.protocol)
            .filter_map(|it| it.hostname())
            .filter(|it| Some(*it) != hostname)
            .collect();
        let is_exact = hostname.is_some_and(|it| !it.starts_with('*'));
        let is_own = |wanted: &String| {
            is_exact
                || !others
                    .iter()
                    .any(|it| hostname.map_or(0, str::len) <= it.len() && host::covers(it, wanted))
        };
        Parent {
            gateway: listening.full_name(),
            listening: Some(listening),
            port: None,
            hosts: self.hosts().into_iter().filter(is_own).collect(),
        }
    }

    fn at_service<'a>(
        &self,
        mesh: &'m Mesh,
        reference: &ParentReference,
    ) -> Result<Vec<Parent<'a>>, (&'static str, String)> {
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace());
        let name = reference.name.as_str();
        let found = mesh.get(Kind::Service, namespace, name);
        let Some(Spec::Service(service)) = found.map(|it| &it.spec) else {
            return Err((unmet::NO_PARENT, format!("there is no Service {namespace}/{name}")));
        };
        if let Some(port) = reference.port
            && !service.ports.iter().any(|it| it.port == port)
        {
            let why = format!("Service {namespace}/{name} has no port {port}");
            return Err((unmet::NO_PARENT, why));
        }
        Ok(vec![in_mesh(reference, vec![host::service(name, namespace)])])
    }

    fn at_entry<'a>(
        &self,
        mesh: &'m Mesh,
        reference: &ParentReference,
    ) -> Result<Vec<Parent<'a>>, (&'static str, String)> {
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace());
        let found = mesh.get(Kind::ServiceEntry, namespace, &reference.name);
        let Some(Spec::ServiceEntry(entry)) = found.map(|it| &it.spec) else {
            let why = format!("there is no ServiceEntry {namespace}/{}", reference.name);
            return Err((unmet::NO_PARENT, why));
        };
        Ok(vec![in_mesh(reference, entry.hosts.clone())])
    }
}

fn in_mesh<'a>(reference: &ParentReference, hosts: Vec<String>) -> Parent<'a> {
    Parent { gateway: MESH.to_owned(), listening: None, port: reference.port, hosts }
}
