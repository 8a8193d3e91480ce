//! What is counted of policies: its shards, and how it is named.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use smallvec::smallvec;

use super::sample::{AllLabels, HTTP, Scope};
use super::{Metrics, RbacPolicyStats, RbacStats, ShadowRbacStats};
use crate::config::rbac::{Part, StatScope};

impl Metrics {
    /// A fresh shard of verdicts of rules for the calling worker, counted until it is dropped.
    pub fn rbac(&self, scope: &StatScope) -> Arc<RbacStats> {
        self.rbac.shard(Scope::rbac(scope))
    }

    /// A fresh shard of verdicts of shadow rules for the calling worker, counted until it is dropped.
    pub fn shadow_rbac(&self, scope: &StatScope) -> Arc<ShadowRbacStats> {
        self.shadow_rbac.shard(Scope::rbac(scope))
    }

    /// A fresh shard of one policy for the calling worker, counted until it is dropped.
    pub fn rbac_policy(&self, scope: &StatScope) -> Arc<RbacPolicyStats> {
        self.rbac_policies.shard(Scope::rbac(scope))
    }
}

/// What stands before a statistic's own name in `/stats`.
pub(super) fn write(scope: &StatScope, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let StatScope { owner, is_http, prefix, part } = scope;
    let http = if *is_http { "http." } else { "" };
    write!(f, "{http}{owner}.rbac.")?;
    if !prefix.is_empty() {
        write!(f, "{prefix}.")?;
    }
    match part {
        Part::Rules | Part::Shadow => Ok(()),
        Part::Policy(name) => write!(f, "policy.{name}."),
    }
}

/// The Prometheus name of the scope, without `envoy_`, and its labels.
pub(super) fn family(scope: &StatScope) -> (Cow<'static, str>, AllLabels<'_>) {
    let StatScope { owner, is_http, prefix, part } = scope;
    if !is_http {
        let rest = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        // Envoy takes the name for one of a TCP proxy called `rbac`, too.
        return match &**owner {
            "tcp" => {
                (rest.into(), smallvec![("envoy_rbac_prefix", "tcp"), ("envoy_tcp_prefix", "rbac")])
            }
            owner => (format!("rbac.{rest}").into(), smallvec![("envoy_rbac_prefix", owner)]),
        };
    }
    let mut labels = AllLabels::new();
    let name = match part {
        Part::Rules | Part::Shadow => "http.rbac.",
        Part::Policy(name) => {
            labels.push(("envoy_rbac_policy_name", name));
            "http.rbac.policy."
        }
    };
    if !prefix.is_empty() {
        labels.push(("envoy_rbac_http_prefix", prefix));
    }
    labels.push((HTTP, owner));
    (name.into(), labels)
}

#[cfg(test)]
mod tests {
    use super::super::sample::Scope;
    use super::*;

    fn scope(owner: &str, is_http: bool, prefix: &str, part: Part) -> Scope {
        Scope::rbac(&StatScope { owner: owner.into(), is_http, prefix: prefix.into(), part })
    }

    /// As Envoy 1.40 has them.
    #[test]
    fn names_and_labels_are_envoys() {
        let policy = Part::Policy("ok pol[1]:x".into());
        for (scope, name, family, labels) in [
            (
                scope("in", true, "", Part::Rules),
                "http.in.rbac.",
                "http.rbac.",
                &[(HTTP, "in")][..],
            ),
            (
                scope("in", true, "rp_", policy),
                "http.in.rbac.rp_.policy.ok pol[1]:x.",
                "http.rbac.policy.",
                &[
                    ("envoy_rbac_policy_name", "ok pol[1]:x"),
                    ("envoy_rbac_http_prefix", "rp_"),
                    (HTTP, "in"),
                ],
            ),
            (
                scope("np", false, "", Part::Rules),
                "np.rbac.",
                "rbac.",
                &[("envoy_rbac_prefix", "np")],
            ),
            (
                scope("tcp", false, "sp_", Part::Shadow),
                "tcp.rbac.sp_.",
                "sp_.",
                &[("envoy_rbac_prefix", "tcp"), ("envoy_tcp_prefix", "rbac")],
            ),
        ] {
            assert_eq!(scope.to_string(), name);
            let (shown, shown_labels) = scope.family();
            assert_eq!((&*shown, &*shown_labels), (family, labels), "{name}");
        }
    }
}
