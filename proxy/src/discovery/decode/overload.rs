//! The overload manager: resource monitors, actions, triggers.

use xds::envoy::config::overload::v3::resource_monitor::ConfigType;
use xds::envoy::config::overload::v3::scale_timers_overload_action_config::scale_timer::OverloadAdjust;
use xds::envoy::config::overload::v3::scale_timers_overload_action_config::{
    ScaleTimer, TimerType,
};
use xds::envoy::config::overload::v3::trigger::TriggerOneof;
use xds::envoy::config::overload::v3::{
    OverloadAction, OverloadManager, ResourceMonitor, ScaleTimersOverloadActionConfig,
    ScaledTrigger, ThresholdTrigger, Trigger,
};
use xds::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig;
use xds::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use xds::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;

use super::errors::{At, Result, each, refuse, required};
use super::extension::{unpack, unsupported};
use super::value::{duration, enumeration, name, percent, positive_duration};
use crate::config::HashMap;
use crate::config::overload::{
    Action, ActionKind, Monitor, MonitorKind, Overload, Shortest, Timer, TimerScale,
    Trigger as When,
};

/// The overload manager; limits of single listeners are said elsewhere.
pub(super) fn overload_manager(proto: &OverloadManager) -> Result<Overload> {
    let OverloadManager {
        refresh_interval,
        resource_monitors,
        actions,
        loadshed_points,
        buffer_factory_config: _,
    } = proto;
    if !loadshed_points.is_empty() {
        return refuse("loadshed_points", "not supported by this version");
    }
    let found = each("resource_monitors", resource_monitors, resource_monitor)?;
    let duplicate = |index: usize| {
        refuse(&format!("resource_monitors[{index}].name"), "duplicate resource monitor")
    };
    let (mut monitors, mut max_connections) = (Vec::<Monitor>::new(), None);
    for (index, found) in found.into_iter().enumerate() {
        match found {
            Resource::Memory(monitor) if monitors.iter().any(|it| it.name == monitor.name) => {
                return duplicate(index);
            }
            Resource::Memory(monitor) => monitors.push(monitor),
            Resource::Connections(_) if max_connections.is_some() => return duplicate(index),
            Resource::Connections(limit) => max_connections = Some(limit),
        }
    }
    let refresh = positive_duration("refresh_interval", refresh_interval.as_ref())?;
    let actions = each("actions", actions, |proto| action(proto, &monitors))?;
    let repeated = actions.iter().enumerate().find(|(at, action)| {
        actions[..*at].iter().any(|before| before.kind.name() == action.kind.name())
    });
    if let Some((at, action)) = repeated {
        let reason = format!("duplicate overload action {}", action.kind.name());
        return refuse(&format!("actions[{at}].name"), reason);
    }
    if resource_monitors.is_empty() {
        return refuse("resource_monitors", "needs at least one");
    }
    Ok(Overload {
        refresh: refresh.unwrap_or(Overload::default().refresh),
        monitors,
        actions,
        max_connections,
        listener_limits: HashMap::default(),
    })
}

enum Resource {
    Memory(Monitor),
    Connections(u64),
}

fn resource_monitor(proto: &ResourceMonitor) -> Result<Resource> {
    let ResourceMonitor { name: monitor_name, config_type } = proto;
    let monitor_name = name("name", monitor_name)?;
    let memory = |kind| Resource::Memory(Monitor { name: monitor_name, kind });
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    let positive = |field: &str, value: u64| match value {
        0 => refuse(field, "must be greater than 0"),
        value => Ok(value),
    };
    let decoded = if let Some(FixedHeapConfig { max_heap_size_bytes }) = unpack(any)? {
        positive("max_heap_size_bytes", max_heap_size_bytes)
            .map(|max| memory(MonitorKind::FixedHeap { max }))
    } else if let Some(CgroupMemoryConfig { max_memory_bytes }) = unpack(any)? {
        let max = (max_memory_bytes > 0).then_some(max_memory_bytes);
        Ok(memory(MonitorKind::CgroupMemory { max }))
    } else if let Some(DownstreamConnectionsConfig { max_active_downstream_connections }) =
        unpack(any)?
    {
        let limit = u64::try_from(max_active_downstream_connections).unwrap_or(0);
        positive("max_active_downstream_connections", limit).map(Resource::Connections)
    } else {
        unsupported(any)
    };
    decoded.at("typed_config")
}

fn action(proto: &OverloadAction, monitors: &[Monitor]) -> Result<Action> {
    let OverloadAction { name, triggers, typed_config } = proto;
    let kind = match (name.strip_prefix("envoy.overload_actions."), typed_config) {
        (Some("reduce_timeouts"), Some(any)) => match unpack(any).at("typed_config")? {
            Some(scale) => ActionKind::ReduceTimeouts(timers(&scale).at("typed_config")?),
            None => return unsupported(any).at("typed_config"),
        },
        (Some("reduce_timeouts"), None) => return refuse("typed_config", "required"),
        (Some("stop_accepting_requests"), None) => ActionKind::StopAcceptingRequests,
        (Some("stop_accepting_connections"), None) => ActionKind::StopAcceptingConnections,
        (Some("reject_incoming_connections"), None) => ActionKind::RejectIncomingConnections,
        (Some("disable_http_keepalive"), None) => ActionKind::DisableKeepalive,
        (Some("shrink_heap"), None) => ActionKind::ShrinkHeap,
        _ => return refuse("name", format!("{name:?} is not supported by this version")),
    };
    if triggers.is_empty() {
        return refuse("triggers", "needs at least one trigger");
    }
    Ok(Action { kind, triggers: each("triggers", triggers, |proto| trigger(proto, monitors))? })
}

fn trigger(proto: &Trigger, monitors: &[Monitor]) -> Result<When> {
    let Trigger { name, trigger_oneof } = proto;
    let Some(monitor) = monitors.iter().position(|monitor| *monitor.name == **name) else {
        let reason = format!(
            "there is no resource monitor {name:?} of memory: actions by others are not supported"
        );
        return refuse("name", reason);
    };
    let share = |field: &str, value: f64| match value {
        0.0..=1.0 => Ok(value),
        _ => refuse(field, "must be 0 to 1"),
    };
    let (from, to) = match required("threshold", trigger_oneof)? {
        TriggerOneof::Threshold(ThresholdTrigger { value }) => {
            let value = share("threshold.value", *value)?;
            (value, value)
        }
        TriggerOneof::Scaled(ScaledTrigger { scaling_threshold, saturation_threshold }) => {
            let from = share("scaled.scaling_threshold", *scaling_threshold)?;
            let to = share("scaled.saturation_threshold", *saturation_threshold)?;
            if from >= to {
                return refuse(
                    "scaled",
                    "scaling_threshold must be less than saturation_threshold",
                );
            }
            (from, to)
        }
    };
    Ok(When { monitor, from, to })
}

fn timers(proto: &ScaleTimersOverloadActionConfig) -> Result<Vec<TimerScale>> {
    let ScaleTimersOverloadActionConfig { timer_scale_factors } = proto;
    if timer_scale_factors.is_empty() {
        return refuse("timer_scale_factors", "needs at least one timer");
    }
    let timers = each("timer_scale_factors", timer_scale_factors, timer)?;
    let mut counted = timers.iter().enumerate();
    match counted.find(|(at, it)| timers[..*at].iter().any(|before| before.timer == it.timer)) {
        Some((at, _)) => {
            refuse(&format!("timer_scale_factors[{at}].timer"), "duplicate entry for this timer")
        }
        None => Ok(timers),
    }
}

fn timer(proto: &ScaleTimer) -> Result<TimerScale> {
    let ScaleTimer { timer, overload_adjust } = proto;
    let timer = match enumeration("timer", *timer)? {
        TimerType::HttpDownstreamConnectionIdle => Timer::ConnectionIdle,
        TimerType::HttpDownstreamStreamIdle => Timer::StreamIdle,
        TimerType::TransportSocketConnect => Timer::TransportSocketConnect,
        other => {
            let reason = format!("{} is not supported by this version", other.as_str_name());
            return refuse("timer", reason);
        }
    };
    let to = match required("min_timeout", overload_adjust)? {
        OverloadAdjust::MinTimeout(proto) => Shortest::Timeout(duration(proto).at("min_timeout")?),
        OverloadAdjust::MinScale(proto) => {
            Shortest::Share(percent("min_scale", Some(proto), 0.0)? / 100.0)
        }
    };
    Ok(TimerScale { timer, to })
}
