//! What is counted of faults that are made on purpose.

use super::super::cell::{Cell, SharedCounter, SharedGauge};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// `http.PREFIX.fault.*`, written by all workers: a limit on faults is one of all of them.
    FaultStats {
        /// Requests that were aborted.
        aborts_injected: SharedCounter = "aborts_injected",
        /// Requests that were delayed.
        delays_injected: SharedCounter = "delays_injected",
        /// Faults left out because there were as many as there may be.
        faults_overflow: SharedCounter = "faults_overflow",
        /// Responses that were slowed down.
        response_rl_injected: SharedCounter = "response_rl_injected",
        /// Streams with a fault.
        active_faults: SharedGauge = "active_faults",
    }
}

statistics! {
    /// `http.PREFIX.fault.CLUSTER.*`: what requests of one downstream cluster met.
    ClusterFaultStats {
        /// Requests that were aborted.
        aborts_injected: SharedCounter = "aborts_injected",
        /// Requests that were delayed.
        delays_injected: SharedCounter = "delays_injected",
    }
}
