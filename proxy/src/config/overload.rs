//! What is done before memory or connections run out (Envoy `config.overload.v3.OverloadManager`).

use std::time::Duration;

use super::{HashMap, Name};

/// Envoy `OverloadManager`, with the connection limits that Envoy keeps in its runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct Overload {
    /// `refresh_interval`: how often pressure is looked at; 1 s by default.
    pub refresh: Duration,
    /// What is looked at; each once.
    pub monitors: Vec<Monitor>,
    /// What is done; each kind once.
    pub actions: Vec<Action>,
    /// `global_downstream_max_connections`: connections of all listeners together.
    pub max_connections: Option<u64>,
    /// `envoy.resource_limits.listener.NAME.connection_limit`
    pub listener_limits: HashMap<Name, u64>,
}

/// Envoy `ResourceMonitor` of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// `name`, by which triggers and statistics call it.
    pub name: Name,
    /// What it looks at.
    pub kind: MonitorKind,
}

/// What a monitor of memory looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorKind {
    /// `fixed_heap`: resident memory of the process, in bytes.
    FixedHeap {
        /// Pressure is 1 here.
        max: u64,
    },
    /// `cgroup_memory`: memory in use by the cgroup, without what the kernel can take back from files.
    CgroupMemory {
        /// Pressure is 1 here, in bytes; none means at the cgroup's own limit.
        max: Option<u64>,
    },
}

/// Envoy `OverloadAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What is done.
    pub kind: ActionKind,
    /// When: the one that asks for most decides.
    pub triggers: Vec<Trigger>,
}

/// What is done. The numbers are places in the list of all kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionKind {
    /// `stop_accepting_requests`: requests get 503.
    StopAcceptingRequests,
    /// `stop_accepting_connections`: connections wait in the kernel's queue.
    StopAcceptingConnections,
    /// `reject_incoming_connections`: connections are accepted and closed.
    RejectIncomingConnections,
    /// `disable_http_keepalive`: connections close after the response.
    DisableKeepalive,
    /// `reduce_timeouts`
    ReduceTimeouts(Vec<TimerScale>),
    /// `shrink_heap`: nothing is done, for the allocator returns free memory by itself.
    ShrinkHeap,
}

/// How a timer is shortened under full pressure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimerScale {
    /// Which.
    pub timer: Timer,
    /// To what.
    pub to: Shortest,
}

/// Envoy `ScaleTimersOverloadActionConfig.TimerType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// HTTP_DOWNSTREAM_CONNECTION_IDLE
    ConnectionIdle,
    /// HTTP_DOWNSTREAM_STREAM_IDLE
    StreamIdle,
    /// TRANSPORT_SOCKET_CONNECT
    TransportSocketConnect,
}

/// What a timer becomes under full pressure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shortest {
    /// `min_timeout`
    Timeout(Duration),
    /// `min_scale`: this share of itself, 0 to 1.
    Share(f64),
}

/// Envoy `Trigger`: how strongly a monitor's pressure asks for an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trigger {
    /// Place of the monitor in the list.
    pub monitor: usize,
    /// Pressure at which the action begins, 0 to 1.
    pub from: f64,
    /// Pressure at which it is in full force; equal to `from` for a `threshold`.
    pub to: f64,
}

impl Trigger {
    /// How strongly `pressure` asks for the action, 0 to 1.
    pub fn scale(&self, pressure: f64) -> f64 {
        if pressure >= self.to {
            1.0
        } else if pressure <= self.from {
            0.0
        } else {
            (pressure - self.from) / (self.to - self.from)
        }
    }
}

impl Default for Overload {
    /// What protects a process that nobody configured: shed by the memory limit of its cgroup, if it has one.
    fn default() -> Self {
        let trigger = |from, to| vec![Trigger { monitor: 0, from, to }];
        let idle = TimerScale {
            timer: Timer::ConnectionIdle,
            to: Shortest::Timeout(Duration::from_secs(2)),
        };
        Self {
            refresh: Duration::from_secs(1),
            monitors: vec![Monitor {
                name: "envoy.resource_monitors.cgroup_memory".into(),
                kind: MonitorKind::CgroupMemory { max: None },
            }],
            actions: vec![
                Action { kind: ActionKind::StopAcceptingRequests, triggers: trigger(0.95, 0.95) },
                Action {
                    kind: ActionKind::StopAcceptingConnections,
                    triggers: trigger(0.98, 0.98),
                },
                Action {
                    kind: ActionKind::ReduceTimeouts(vec![idle]),
                    triggers: trigger(0.85, 0.95),
                },
            ],
            max_connections: None,
            listener_limits: HashMap::default(),
        }
    }
}

impl ActionKind {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::StopAcceptingRequests => "envoy.overload_actions.stop_accepting_requests",
            Self::StopAcceptingConnections => "envoy.overload_actions.stop_accepting_connections",
            Self::RejectIncomingConnections => "envoy.overload_actions.reject_incoming_connections",
            Self::DisableKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Self::ReduceTimeouts(_) => "envoy.overload_actions.reduce_timeouts",
            Self::ShrinkHeap => "envoy.overload_actions.shrink_heap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_rises_between_its_thresholds() {
        let scaled = Trigger { monitor: 0, from: 0.8, to: 0.9 };
        for (pressure, scale) in [(0.0, 0.0), (0.8, 0.0), (0.85, 0.5), (0.9, 1.0), (7.0, 1.0)] {
            assert!((scaled.scale(pressure) - scale).abs() < 1e-9, "{pressure}");
        }
        let threshold = Trigger { monitor: 0, from: 0.9, to: 0.9 };
        assert_eq!((threshold.scale(0.899), threshold.scale(0.9)), (0.0, 1.0));
    }
}
