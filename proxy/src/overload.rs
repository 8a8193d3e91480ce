//! Protects the process before memory or connections run out (Envoy's overload manager).
//!
//! The control thread looks at memory now and then; workers read what follows from it as single atomics. Limits
//! on connections are counted where connections are accepted.

mod limits;
mod memory;
mod statistics;
mod token_bucket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use crate::config::overload::{self as config, ActionKind, Shortest, Timer};

pub use limits::{Full, Limits, Permit};
pub use token_bucket::TokenBucket;

/// A scale in full force.
const FULL: u32 = 1000;

/// How much pressure there is, and what is to be done about it.
#[derive(Debug)]
pub struct Overload {
    config: config::Overload,
    /// Connections that may be open.
    pub limits: Limits,
    requests: Scale,
    connections: Scale,
    rejection: Scale,
    keepalive: Scale,
    timers: Scale,
    heap: Scale,
    pressures: Vec<Pressure>,
    changes: watch::Sender<()>,
}

/// How strongly something is done, in thousandths.
#[derive(Debug, Default)]
struct Scale(AtomicU32);

/// The last reading of one monitor.
#[derive(Debug, Default)]
struct Pressure {
    percent: AtomicU64,
    failed: AtomicU64,
}

impl Scale {
    fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    fn is_full(&self) -> bool {
        self.get() == FULL
    }
}

impl Overload {
    /// Nothing is wrong yet. `descriptors` is how many files the process may have open.
    pub fn new(config: config::Overload, descriptors: u64) -> Self {
        Self {
            limits: Limits::new(&config, descriptors),
            requests: Scale::default(),
            connections: Scale::default(),
            rejection: Scale::default(),
            keepalive: Scale::default(),
            timers: Scale::default(),
            heap: Scale::default(),
            pressures: config.monitors.iter().map(|_| Pressure::default()).collect(),
            changes: watch::Sender::new(()),
            config,
        }
    }

    /// Whether requests are to be answered with 503 (`stop_accepting_requests`).
    pub fn refuses_requests(&self) -> bool {
        self.requests.is_full()
    }

    /// Whether connections are to be left in the kernel's queue (`stop_accepting_connections`).
    pub fn stops_connections(&self) -> bool {
        self.connections.is_full()
    }

    /// Whether connections are to be closed as soon as they are accepted (`reject_incoming_connections`). A
    /// part of them is, while pressure rises; `random` is a random number.
    pub fn rejects_connection(&self, random: u64) -> bool {
        let scale = self.rejection.get();
        scale > 0 && random % u64::from(FULL) < u64::from(scale)
    }

    /// Whether connections are to end with the request under way (`disable_http_keepalive`).
    pub fn disables_keepalive(&self) -> bool {
        self.keepalive.is_full()
    }

    /// What becomes of a timeout under the pressure of this moment (`reduce_timeouts`).
    pub fn timeout(&self, timer: Timer, configured: Duration) -> Duration {
        let scale = self.timers.get();
        if scale == 0 {
            return configured;
        }
        let scales = self.config.actions.iter().find_map(|action| match &action.kind {
            ActionKind::ReduceTimeouts(timers) => timers.iter().find(|it| it.timer == timer),
            _ => None,
        });
        let shortest = match scales.map(|scales| scales.to) {
            None => return configured,
            Some(Shortest::Timeout(shortest)) => shortest.min(configured),
            Some(Shortest::Share(share)) => configured.mul_f64(share.clamp(0.0, 1.0)),
        };
        shortest + configured.saturating_sub(shortest) * (FULL - scale) / FULL
    }

    /// Tells when something else is to be done than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Looks at memory and decides anew, for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        if self.config.monitors.is_empty() || self.config.actions.is_empty() {
            return;
        }
        let mut ticks = tokio::time::interval(self.config.refresh);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let readings = self.config.monitors.iter().map(|it| memory::pressure(&it.kind));
            self.decide(&readings.collect::<Vec<_>>());
        }
    }

    /// Takes over what the monitors read; one that could not be read keeps its last reading.
    fn decide(&self, readings: &[Option<f64>]) {
        for (pressure, reading) in self.pressures.iter().zip(readings) {
            match reading {
                Some(reading) => pressure.percent.store((reading * 100.0) as u64, Relaxed),
                None => drop(pressure.failed.fetch_add(1, Relaxed)),
            }
        }
        let mut changed = false;
        for action in &self.config.actions {
            let asked = action.triggers.iter().filter_map(|trigger| {
                let pressure = readings.get(trigger.monitor).copied().flatten()?;
                Some(trigger.scale(pressure))
            });
            let Some(scale) = asked.reduce(f64::max) else { continue };
            // Steps of a tenth: that connections look at their timers again is not worth every byte.
            let scale = if scale >= 1.0 { FULL } else { (scale * 10.0) as u32 * (FULL / 10) };
            let before = self.scale(&action.kind).0.swap(scale, Relaxed);
            if before != scale {
                changed = true;
                report(action.kind.name(), before, scale);
            }
        }
        if changed {
            self.changes.send_replace(());
        }
    }

    fn scale(&self, kind: &ActionKind) -> &Scale {
        match kind {
            ActionKind::StopAcceptingRequests => &self.requests,
            ActionKind::StopAcceptingConnections => &self.connections,
            ActionKind::RejectIncomingConnections => &self.rejection,
            ActionKind::DisableKeepalive => &self.keepalive,
            ActionKind::ReduceTimeouts(_) => &self.timers,
            ActionKind::ShrinkHeap => &self.heap,
        }
    }
}

fn report(action: &str, before: u32, scale: u32) {
    if scale == FULL {
        tracing::warn!(action, "overloaded: memory runs out; raise the limit or spread the load");
    } else if before == FULL {
        tracing::info!(action, "no longer overloaded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::overload::{Monitor, MonitorKind, TimerScale, Trigger};

    fn heap() -> Monitor {
        Monitor { name: "heap".into(), kind: MonitorKind::FixedHeap { max: 1 } }
    }

    fn overload() -> Overload {
        let config = config::Overload { monitors: vec![heap()], ..config::Overload::default() };
        Overload::new(config, 1 << 20)
    }

    #[test]
    fn timers_shorten_first_then_requests_then_connections_are_refused() {
        let overload = overload();
        let state = |overload: &Overload| {
            let idle = overload.timeout(Timer::ConnectionIdle, Duration::from_secs(102));
            (idle.as_secs(), overload.refuses_requests(), overload.stops_connections())
        };
        for (pressure, expected) in [
            (0.5, (102, false, false)),
            (0.86, (92, false, false)),
            (0.9, (52, false, false)),
            (0.96, (2, true, false)),
            (0.99, (2, true, true)),
            (0.2, (102, false, false)),
        ] {
            overload.decide(&[Some(pressure)]);
            assert_eq!(state(&overload), expected, "{pressure}");
        }
    }

    #[test]
    fn a_share_that_is_all_of_a_timeout_changes_nothing() {
        let all = TimerScale { timer: Timer::StreamIdle, to: Shortest::Share(1.0) };
        let config = config::Overload {
            monitors: vec![heap()],
            actions: vec![config::Action {
                kind: ActionKind::ReduceTimeouts(vec![all]),
                triggers: vec![Trigger { monitor: 0, from: 0.5, to: 0.5 }],
            }],
            ..config::Overload::default()
        };
        let overload = Overload::new(config, 1 << 20);
        overload.decide(&[Some(0.5)]);
        // As floating-point numbers, some of these are more than they are.
        for nanoseconds in 0..1000 {
            let configured = Duration::new(10_000_000, 123_456_000 + nanoseconds);
            let reduced = overload.timeout(Timer::StreamIdle, configured);
            assert!(reduced.abs_diff(configured) < Duration::from_micros(1), "{reduced:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let overload = overload();
        overload.decide(&[Some(0.99)]);
        let changes = overload.changes();
        overload.decide(&[None]);
        assert!(overload.refuses_requests() && !changes.has_changed().unwrap());
        assert_eq!(overload.pressures[0].failed.load(Relaxed), 1);
    }

    #[test]
    fn a_share_shortens_any_timeout_and_none_below_its_own_minimum() {
        let scale = |timer, to| TimerScale { timer, to };
        let timers = vec![
            scale(Timer::StreamIdle, Shortest::Share(0.1)),
            scale(Timer::ConnectionIdle, Shortest::Timeout(Duration::from_secs(5))),
        ];
        let config = config::Overload {
            monitors: vec![heap()],
            actions: vec![config::Action {
                kind: ActionKind::ReduceTimeouts(timers),
                triggers: vec![Trigger { monitor: 0, from: 0.5, to: 0.5 }],
            }],
            ..config::Overload::default()
        };
        let overload = Overload::new(config, 1 << 20);
        overload.decide(&[Some(0.5)]);
        let seconds = |timer, limit| overload.timeout(timer, Duration::from_secs(limit)).as_secs();
        assert_eq!(seconds(Timer::StreamIdle, 100), 10);
        assert_eq!(seconds(Timer::ConnectionIdle, 3), 3);
        assert_eq!(seconds(Timer::TransportSocketConnect, 9), 9);
    }
}
