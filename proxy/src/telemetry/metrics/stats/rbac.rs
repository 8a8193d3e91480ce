//! What is counted of policies' verdicts.

use super::super::cell::{Cell, Counter, SparseCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.MANAGER.rbac.PREFIX.*` or `STAT_PREFIX.rbac.*`.
    RbacStats {
        /// What the rules have let pass.
        allowed: Counter = "allowed",
        /// What the rules have not let pass.
        denied: Counter = "denied",
    }
}

statistics! {
    /// One worker's share of the same of shadow rules, whose prefix may be another.
    ShadowRbacStats {
        /// What the shadow rules would let pass.
        allowed: Counter = "shadow_allowed",
        /// What the shadow rules would not let pass.
        denied: Counter = "shadow_denied",
    }
}

statistics! {
    /// One worker's share of `http.MANAGER.rbac.PREFIX.policy.NAME.*`.
    RbacPolicyStats {
        /// What passed where this policy of the rules matched.
        allowed: SparseCounter = "allowed",
        /// What did not.
        denied: SparseCounter = "denied",
        /// What would pass where this policy of the shadow rules matched.
        shadow_allowed: SparseCounter = "shadow_allowed",
        /// What would not.
        shadow_denied: SparseCounter = "shadow_denied",
    }
}
