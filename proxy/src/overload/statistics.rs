//! The overload manager's statistics.

use std::sync::atomic::Ordering::Relaxed;

use super::{FULL, Overload};
use crate::config::overload::ActionKind;
use crate::telemetry::metrics::{Probe, Samples, Scope};

impl Probe for Overload {
    fn collect(&self, out: &mut Samples) {
        for action in &self.config.actions {
            let scale = self.scale(&action.kind).get();
            let (active, percent) = action_names(&action.kind);
            out.gauge(&Scope::Root, active, i64::from(scale == FULL));
            out.gauge(&Scope::Root, percent, i64::from(scale * 100 / FULL));
        }
        for (monitor, seen) in self.config.monitors.iter().zip(&self.pressures) {
            let scope = Scope::overload(&monitor.name);
            let percent = i64::try_from(seen.percent.load(Relaxed)).unwrap_or(i64::MAX);
            out.gauge(&scope, "pressure", percent);
            out.counter(&scope, "failed_updates", seen.failed.load(Relaxed));
        }
        let (max, open) = self.limits.global();
        let percent = i64::try_from(open * 100 / max.max(1)).unwrap_or(i64::MAX);
        let name = "overload.envoy.resource_monitors.global_downstream_max_connections.pressure";
        out.gauge(&Scope::Root, name, percent);
    }
}

macro_rules! names {
    ($of:literal, $first:literal, $second:literal) => {
        (concat!("overload.envoy.", $of, $first), concat!("overload.envoy.", $of, $second))
    };
}

fn action_names(kind: &ActionKind) -> (&'static str, &'static str) {
    macro_rules! of {
        ($name:literal) => {
            names!($name, ".active", ".scale_percent")
        };
    }
    match kind {
        ActionKind::StopAcceptingRequests => of!("overload_actions.stop_accepting_requests"),
        ActionKind::StopAcceptingConnections => of!("overload_actions.stop_accepting_connections"),
        ActionKind::RejectIncomingConnections => {
            of!("overload_actions.reject_incoming_connections")
        }
        ActionKind::DisableKeepalive => of!("overload_actions.disable_http_keepalive"),
        ActionKind::ReduceTimeouts(_) => of!("overload_actions.reduce_timeouts"),
        ActionKind::ShrinkHeap => of!("overload_actions.shrink_heap"),
    }
}
