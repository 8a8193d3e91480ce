//! `PeerAuthentication`: where a workload demands the mesh's mTLS, accepts it, or does without.

use std::collections::BTreeMap;

use super::proxy::Proxy;
use crate::model::istio::peer_authentication::{Mode, PeerAuthentication};
use crate::model::workloads::{Labels, selects};
use crate::model::{Found, Mesh};

/// What a workload demands of who connects to it; never [`Mode::Unset`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// On ports that nothing else is said of.
    pub mode: Mode,
    /// On these ports.
    pub by_port: BTreeMap<u32, Mode>,
}

impl Demand {
    /// What the workload of a proxy demands: its own policy's word, else its namespace's, else the mesh's.
    pub(super) fn of(mesh: &Mesh, proxy: &Proxy) -> Self {
        Self::of_workload(mesh, &proxy.namespace, &proxy.labels)
    }

    /// The same for pods with these labels.
    pub(super) fn of_workload(mesh: &Mesh, namespace: &str, labels: &Labels) -> Self {
        let mut mode = namespace_mode(mesh, namespace).unwrap_or(Mode::Permissive);
        let mut by_port = BTreeMap::new();
        let own = policies(mesh, namespace).find(|it| {
            namespace != mesh.config.root_namespace
                && selector(it).is_some_and(|wanted| selects(wanted, labels))
        });
        if let Some(own) = own {
            mode = said(own).unwrap_or(mode);
            let ports = own.spec.port_level_mtls.iter().flatten();
            by_port.extend(ports.map(|(port, mtls)| match mtls.mode {
                Mode::Unset => (*port, mode),
                said => (*port, said),
            }));
        }
        Self { mode, by_port }
    }

    /// What is demanded on a port.
    pub(super) fn on(&self, port: u32) -> Mode {
        self.by_port.get(&port).copied().unwrap_or(self.mode)
    }
}

/// What a namespace's policy says, else the whole mesh's; none if neither says anything.
pub(super) fn namespace_mode(mesh: &Mesh, namespace: &str) -> Option<Mode> {
    let of = |namespace: &str| {
        policies(mesh, namespace).find(|it| selector(it).is_none()).and_then(said)
    };
    of(namespace).or_else(|| of(&mesh.config.root_namespace))
}

fn said(policy: Found<'_, PeerAuthentication>) -> Option<Mode> {
    policy.spec.mtls.as_ref().map(|it| it.mode).filter(|mode| *mode != Mode::Unset)
}

/// The policy's labels; none if it is for all of its namespace.
fn selector<'m>(policy: &Found<'m, PeerAuthentication>) -> Option<&'m Labels> {
    policy.spec.selector.as_ref().map(|it| &it.match_labels).filter(|it| !it.is_empty())
}

/// The policies of a namespace, the oldest first.
fn policies<'m>(
    mesh: &'m Mesh,
    namespace: &str,
) -> impl Iterator<Item = Found<'m, PeerAuthentication>> + use<'m> {
    let mut policies: Vec<_> =
        mesh.all::<PeerAuthentication>().filter(|it| it.namespace() == namespace).collect();
    policies.sort_by_key(|it| it.object.metadata.creation_timestamp.clone());
    policies.into_iter()
}
