//! What the Deployments of a mesh come to on this machine: for each a process, a sidecar, and addresses of their own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, bail};
use control_api::model::kind::Spec;
use control_api::model::kubernetes::PodController;
use control_api::model::object::Object;

/// The namespace of the ingress gateway.
pub(super) const GATEWAY_NAMESPACE: &str = "istio-system";
/// Its name, and that of its service and account.
pub(super) const GATEWAY: &str = "istio-ingressgateway";
/// What a container listens on that does not say.
const USUAL_PORT: u16 = 9080;
/// Where a sidecar has its admin API, as in Istio's pods.
const ADMIN_PORT: u16 = 15000;
/// The gateway's place in the network, and the first of the others'.
const GATEWAY_NUMBER: u8 = 1;
const FIRST_NUMBER: u8 = 10;

/// A pod to be, with its sidecar; or the gateway.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Where the pod is reached: by other sidecars, or at the gateway by anybody.
    pub(super) pod: SocketAddr,
    /// Where the sidecar's admin API is.
    pub(super) admin: SocketAddr,
    /// The service behind the sidecar; none at the gateway.
    pub(super) service: Option<Behind>,
}

/// The process that a sidecar stands beside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Behind {
    /// Where it listens, for its sidecar only.
    pub(super) address: SocketAddr,
    /// Where it meets all other services: at its sidecar.
    pub(super) outbound: Ipv4Addr,
}

/// The loopback addresses of a mesh: pods have 127.1.N.*, and meet their sidecars at 127.3.N.*.
#[derive(Debug)]
pub(super) struct Network {
    number: u8,
    /// Keeps other meshes out.
    _claim: TcpListener,
}

impl Network {
    /// One that no other mesh on this machine has.
    ///
    /// # Errors
    /// If all are taken.
    pub(super) fn claim() -> anyhow::Result<Self> {
        let claimed = (0..=u8::MAX).find_map(|number| {
            let claim = TcpListener::bind((pod(number, GATEWAY_NUMBER), ADMIN_PORT)).ok()?;
            // A sidecar may have outlived its mesh.
            drop(TcpListener::bind((sidecar(number, GATEWAY_NUMBER), ADMIN_PORT)).ok()?);
            Some(Self { number, _claim: claim })
        });
        claimed.context("every network below 127.1.0.0/16 is taken, or these addresses are not for loopback here")
    }

    /// One workload for each Deployment, those that there are `already` as they are, and at last the gateway, which
    /// serves at `ingress`.
    ///
    /// # Errors
    /// If there are none, or too many.
    pub(super) fn workloads(
        &self,
        objects: &[impl AsRef<Object>],
        ingress: SocketAddr,
        already: &[Workload],
    ) -> anyhow::Result<Vec<Workload>> {
        let deployments = objects.iter().filter_map(|object| match &object.as_ref().spec {
            Spec::Deployment(it) if it.replicas != Some(0) => Some((object.as_ref(), it)),
            _ => None,
        });
        let mut workloads: Vec<Workload> = Vec::new();
        for (object, deployment) in deployments {
            let taken = |number: &u8| {
                let pod = pod(self.number, *number);
                already.iter().chain(&workloads).any(|it| it.pod.ip() == pod)
            };
            let number = (FIRST_NUMBER..u8::MAX).find(|number| !taken(number));
            let number = number.context("there are more Deployments than addresses")?;
            workloads.push(self.workload(object, deployment, number, already)?);
        }
        if workloads.is_empty() {
            bail!("there is no Deployment in what was given: nothing to start");
        }
        workloads.push(self.gateway(ingress));
        Ok(workloads)
    }

    fn workload(
        &self,
        object: &Object,
        deployment: &PodController,
        number: u8,
        already: &[Workload],
    ) -> anyhow::Result<Workload> {
        let template = &deployment.template;
        let ports = template.spec.containers.iter().flat_map(|container| &container.ports);
        let port = ports.map(|port| port.container_port).next().unwrap_or(USUAL_PORT);
        let account = match template.spec.service_account_name.as_str() {
            "" => "default",
            account => account,
        };
        let (name, namespace) = (&object.metadata.name, &object.metadata.namespace);
        let known = already.iter().find(|it| {
            it.name == *name
                && it.namespace == *namespace
                && it.account == account
                && it.labels == template.metadata.labels
                && it.pod.port() == port
        });
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let outbound = sidecar(self.number, number);
        Ok(Workload {
            name: name.clone(),
            namespace: namespace.clone(),
            account: account.to_owned(),
            labels: template.metadata.labels.clone(),
            pod: (pod(self.number, number), port).into(),
            admin: (outbound, ADMIN_PORT).into(),
            service: Some(Behind { address: free()?, outbound }),
        })
    }

    fn gateway(&self, ingress: SocketAddr) -> Workload {
        let labels = [("app", GATEWAY), ("istio", "ingressgateway")];
        Workload {
            name: GATEWAY.to_owned(),
            namespace: GATEWAY_NAMESPACE.to_owned(),
            account: GATEWAY.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            pod: ingress,
            admin: (sidecar(self.number, GATEWAY_NUMBER), ADMIN_PORT).into(),
            service: None,
        }
    }
}

fn pod(network: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, network, number)
}

fn sidecar(network: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 3, network, number)
}

/// A free port of this machine: Istio wants services behind a sidecar at 127.0.0.1.
fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

impl Workload {
    /// Its name and namespace, as files and people call it.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// What proves to the control plane that it is this workload. Whoever can read the mesh's files could be it anyway.
    pub(super) fn token(&self) -> String {
        format!("token-of-{}", self.full_name())
    }
}
