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

/// What is demanded of who connects to a port of a workload, and the policy that says so; none if none does.
pub fn deciding<'m>(
    mesh: &'m Mesh,
    namespace: &str,
    labels: &Labels,
    port: u32,
) -> (Mode, Option<Found<'m, PeerAuthentication>>) {
    let root = mesh.config.root_namespace.as_str();
    let own = policies(mesh, namespace)
        .find(|it| namespace != root && selector(it).is_some_and(|it| selects(it, labels)))
        .filter(|it| {
            said(*it).is_some() || it.spec.port_level_mtls.iter().flatten().any(|it| *it.0 == port)
        });
    let of = |namespace: &str| {
        policies(mesh, namespace).find(|it| selector(it).is_none()).filter(|it| said(*it).is_some())
    };
    let policy = own.or_else(|| of(namespace)).or_else(|| of(root));
    (Demand::of_workload(mesh, namespace, labels).on(port), policy)
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
    let mut policies: Vec<_> = mesh.of_namespace::<PeerAuthentication>(namespace).collect();
    policies.sort_by_key(|it| it.object.metadata.creation_timestamp.clone());
    policies.into_iter()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::object::{SourceFile, read_file};

    fn policy(name: &str, namespace: &str, spec: &str) -> String {
        format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
             metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}\n"
        )
    }

    fn mesh(policies: &[String]) -> Mesh {
        let file = SourceFile::new(Path::new("x.yaml"), policies.concat());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let objects = objects.map(|it| Arc::new(it.unwrap()));
        Mesh::new(objects, MeshConfig::default(), MeshNetworks::default())
    }

    fn on(mesh: &Mesh, namespace: &str, app: &str, port: u32) -> Mode {
        let labels = Labels::from([("app".to_owned(), app.to_owned())]);
        Demand::of_workload(mesh, namespace, &labels).on(port)
    }

    #[test]
    fn the_narrowest_policy_counts_and_unset_means_the_next_wider_one() {
        let of_web = "selector: {matchLabels: {app: web}}, mtls: {mode: UNSET}, \
                      portLevelMtls: {80: {mode: DISABLE}, 81: {mode: UNSET}}";
        let all = [
            policy("mesh", "istio-system", "mtls: {mode: STRICT}"),
            policy("default", "shop", "mtls: {mode: PERMISSIVE}"),
            policy("web", "shop", of_web),
            policy("unset", "quiet", "mtls: {mode: UNSET}"),
        ];
        let mesh = mesh(&all);
        assert_eq!(on(&mesh, "shop", "web", 80), Mode::Disable);
        assert_eq!(on(&mesh, "shop", "web", 81), Mode::Permissive);
        assert_eq!(on(&mesh, "shop", "web", 82), Mode::Permissive);
        assert_eq!(on(&mesh, "shop", "db", 80), Mode::Permissive);
        assert_eq!(on(&mesh, "quiet", "web", 80), Mode::Strict);
        assert_eq!(on(&mesh, "elsewhere", "web", 80), Mode::Strict);
    }

    #[test]
    fn without_a_policy_both_are_let_in() {
        assert_eq!(
            on(&mesh(&[policy("x", "other", "mtls: {mode: STRICT}")]), "shop", "web", 80),
            Mode::Permissive
        );
    }
}
