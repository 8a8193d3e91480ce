//! One line of the event log: Envoy's `HealthCheckEvent` as JSON.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::progress::{Event, Failure, FailureKind};
use crate::config::address::HostAddress;
use crate::config::endpoint::Locality;
use crate::config::health_check::Checker;

/// Whose event it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) cluster: &'a str,
    pub(super) address: &'a HostAddress,
    pub(super) locality: &'a Locality,
    pub(super) checker: &'a Checker,
}

/// Appends one line about `event`.
pub(super) fn write(event: Event, subject: Subject<'_>, at: SystemTime, out: &mut String) {
    let Locality { region, zone, sub_zone, .. } = subject.locality;
    let (name, value) = event.json();
    let line = json!({
        "health_checker_type": match subject.checker {
            Checker::Http(_) => "HTTP",
            Checker::Tcp(_) => "TCP",
            Checker::Grpc(_) => "GRPC",
        },
        "host": address(subject.address),
        "cluster_name": subject.cluster,
        "timestamp": timestamp(at),
        name: value,
        "locality": {"region": region, "zone": zone, "sub_zone": sub_zone},
    });
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

impl Event {
    /// The field of the event, and what stands in it.
    fn json(self) -> (&'static str, Value) {
        match self {
            Self::EjectUnhealthy(failure) => ("eject_unhealthy_event", failure.json(None)),
            Self::AddHealthy { first } => ("add_healthy_event", json!({"first_check": first})),
            Self::Failed { failure, first } => {
                ("health_check_failure_event", failure.json(Some(first)))
            }
            Self::Degraded => ("degraded_healthy_host", json!({})),
            Self::NoLongerDegraded => ("no_longer_degraded_host", json!({})),
            Self::Passed => ("successful_health_check_event", json!({})),
        }
    }
}

impl Failure {
    fn json(self, first: Option<bool>) -> Value {
        let kind = match self.kind {
            FailureKind::Active => "ACTIVE",
            FailureKind::Passive => "PASSIVE",
            FailureKind::Network => "NETWORK",
            FailureKind::NetworkTimeout => "NETWORK_TIMEOUT",
        };
        match first {
            Some(first) => {
                json!({"failure_type": kind, "first_check": first, "http_status_code": self.status})
            }
            None => json!({"failure_type": kind, "http_status_code": self.status}),
        }
    }
}

fn address(address: &HostAddress) -> Value {
    match address {
        HostAddress::Ip(address) => json!({"socket_address": {
            "protocol": "TCP",
            "address": address.ip().to_string(),
            "port_value": address.port(),
            "resolver_name": "",
            "ipv4_compat": false,
            "network_namespace_filepath": "",
        }}),
        HostAddress::Pipe(path) => json!({"pipe": {"path": &**path, "mode": 0}}),
    }
}

/// As protobuf writes it, in milliseconds.
fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::config::health_check::TcpCheck;

    #[test]
    fn a_line_is_envoys() {
        let checker = Checker::Tcp(TcpCheck { send: Vec::new(), receive: Vec::new() });
        let address = HostAddress::Ip(([127, 0, 0, 1], 80).into());
        let locality = Locality { zone: "z".to_owned(), ..Locality::default() };
        let subject =
            Subject { cluster: "a", address: &address, locality: &locality, checker: &checker };
        let mut out = String::new();
        let event =
            Event::Failed { failure: Failure::of(FailureKind::NetworkTimeout), first: true };
        write(event, subject, UNIX_EPOCH + Duration::from_millis(86_400_007), &mut out);
        let wanted = json!({
            "health_checker_type": "TCP",
            "host": {"socket_address": {
                "protocol": "TCP", "address": "127.0.0.1", "port_value": 80, "resolver_name": "",
                "ipv4_compat": false, "network_namespace_filepath": "",
            }},
            "cluster_name": "a",
            "timestamp": "1970-01-02T00:00:00.007Z",
            "health_check_failure_event": {
                "failure_type": "NETWORK_TIMEOUT", "first_check": true, "http_status_code": 0,
            },
            "locality": {"region": "", "zone": "z", "sub_zone": ""},
        });
        assert_eq!(out.pop(), Some('\n'));
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), wanted);
    }
}
