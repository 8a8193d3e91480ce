//! What a sidecar connects to: the services and virtual services that it is told of, as its `Sidecar` divides them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::index::Index;
use super::proxy::{Proxy, Role};
use super::routes::outbound_cluster;
use super::scope;
use super::service::Service;
use super::telemetry::Class;
use super::virtual_services::{self, MESH, Virtual};
use crate::model::host;
use crate::model::istio::mesh_config::{DefaultConfig, OutboundMode};
use crate::model::istio::sidecar::{CaptureMode, IstioEgressListener, Mode, Sidecar};
use crate::model::protocol::Protocol;

/// What one proxy sees of a mesh.
pub struct View<'m> {
    /// The mesh.
    pub mesh: &'m Index,
    /// The proxy.
    pub proxy: &'m Proxy,
    /// The services it may see, the oldest first.
    pub services: Vec<Arc<Service>>,
    /// What it connects to. The last one may have no port: it has all that the others have not.
    pub egress: Vec<Egress<'m>>,
    /// The proxy's settings.
    pub settings: Cow<'m, DefaultConfig>,
    sidecar: Option<&'m Sidecar>,
    by_host: HashMap<String, Arc<Service>>,
}

/// One way out of a proxy.
pub struct Egress<'m> {
    /// The `Sidecar`'s settings; none for everything.
    pub listener: Option<&'m IstioEgressListener>,
    /// The services that are reached this way.
    pub services: Vec<Arc<Service>>,
    /// The virtual services that count there.
    pub virtual_services: Vec<Arc<Virtual>>,
}

impl Egress<'_> {
    /// The port that all of it is reached at; none for the services' own ones.
    pub fn port(&self) -> Option<u32> {
        Some(self.listener?.port.as_ref()?.number)
    }

    /// The protocol of that port.
    pub fn protocol(&self) -> Option<Protocol> {
        let port = self.listener?.port.as_ref()?;
        Some(Protocol::named(&port.protocol.to_ascii_lowercase()))
    }

    /// Whether its connections are not redirected, but made to the proxy.
    pub fn is_not_captured(&self) -> bool {
        self.listener.is_some_and(|it| it.capture_mode == CaptureMode::None)
    }

    /// The address to listen at; none for the services' own ones.
    pub fn bind(&self) -> Option<&str> {
        Some(self.listener?.bind.as_str()).filter(|it| !it.is_empty())
    }
}

impl<'m> View<'m> {
    /// What this proxy sees.
    pub fn new(mesh: &'m Index, proxy: &'m Proxy) -> Self {
        let services = scope::visible(mesh, proxy);
        let mut virtual_services = virtual_services::visible(mesh, proxy);
        let sidecar = scope::sidecar(mesh, proxy);
        let listeners = sidecar.map(|it| it.egress.as_slice()).unwrap_or_default();
        let mut egress: Vec<_> = listeners
            .iter()
            .map(|listener| divided(listener, &services, &virtual_services, proxy))
            .collect();
        if egress.is_empty() {
            if proxy.role == Role::Sidecar {
                virtual_services.retain(|it| it.is_for(MESH));
            }
            egress.push(Egress { listener: None, services: services.clone(), virtual_services });
        }
        let by_host = services.iter().map(|it| (it.host.clone(), Arc::clone(it))).collect();
        Self { mesh, proxy, services, egress, settings: proxy.settings(mesh), sidecar, by_host }
    }

    /// The virtual services of all ways out; for a gateway, those of all gateways.
    pub fn virtual_services(&self) -> impl Iterator<Item = &Arc<Virtual>> {
        self.egress.iter().flat_map(|it| &it.virtual_services)
    }

    /// The service of this name.
    pub fn service(&self, host: &str) -> Option<&Arc<Service>> {
        self.by_host.get(host)
    }

    /// Which side of the proxy all of this is about.
    pub fn class(&self) -> Class {
        match self.proxy.role {
            Role::Sidecar => Class::Outbound,
            Role::Router => Class::Gateway,
        }
    }

    /// The way out that a route configuration is for: that of its port, or of its socket.
    pub fn egress_of(&self, port: u32, name: &str) -> Option<&Egress<'m>> {
        self.egress.iter().find(|it| match it.port() {
            None => true,
            Some(0) => it.bind() == Some(name),
            Some(own) => own == port,
        })
    }

    /// The cluster for what no service tells of; none if it is refused.
    pub fn other_hosts(&self) -> Option<String> {
        let policy = self.sidecar.and_then(|it| it.outbound_traffic_policy.as_ref());
        let allowed = match policy {
            Some(policy) => policy.mode == Mode::AllowAny,
            None => self.mesh.config.outbound_traffic_policy.mode == OutboundMode::AllowAny,
        };
        let proxy = policy.and_then(|it| it.egress_proxy.as_ref());
        let cluster = proxy.map(|it| outbound_cluster(it, None, 0));
        allowed.then(|| cluster.unwrap_or_else(|| "PassthroughCluster".to_owned()))
    }
}

fn divided<'m>(
    listener: &'m IstioEgressListener,
    services: &[Arc<Service>],
    virtual_services: &[Arc<Virtual>],
    proxy: &Proxy,
) -> Egress<'m> {
    let asked_for = |it: &&Arc<Service>| {
        listener.hosts.iter().any(|pattern| scope::names(pattern, it.namespace(), &it.host, proxy))
    };
    let counts = |it: &&Arc<Virtual>| {
        let named = |pattern: &String| {
            let (_, name) = pattern.split_once('/').unwrap_or(("*", pattern));
            let hosts = it.spec.hosts.iter().filter(|host| host::overlap(host, name));
            hosts.into_iter().any(|_| scope::names(&own(pattern), it.namespace(), "", proxy))
        };
        it.is_for(MESH) && listener.hosts.iter().any(named)
    };
    Egress {
        listener: Some(listener),
        services: services.iter().filter(asked_for).cloned().collect(),
        virtual_services: virtual_services.iter().filter(counts).cloned().collect(),
    }
}

/// The pattern of the namespaces only.
fn own(pattern: &str) -> String {
    let namespace = pattern.split_once('/').map_or("*", |(namespace, _)| namespace);
    format!("{namespace}/*")
}
