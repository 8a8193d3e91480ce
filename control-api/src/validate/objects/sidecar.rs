//! `Sidecar`: listeners that can be, and hosts as `namespace/host`.

use super::check::Check;
use super::{gateway, host};
use crate::model::istio::sidecar::Sidecar;

pub(super) fn check(spec: &Sidecar, check: &mut Check<'_>) {
    let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
    let path = "spec.workloadSelector.labels";
    check.labels(path, labels, "wildcard is not supported in selector");
    let nothing = spec.ingress.is_empty()
        && spec.egress.is_empty()
        && spec.inbound_connection_pool.is_none()
        && spec.outbound_traffic_policy.is_none();
    if nothing {
        check
            .error("spec", "sidecar: empty sidecar")
            .fix("set egress, ingress or outboundTrafficPolicy");
    }
    ingress(spec, check);
    egress(spec, check);
}

fn ingress(spec: &Sidecar, check: &mut Check<'_>) {
    for (at, listener) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{at}]");
        match &listener.port {
            None => {
                check.error(&format!("{path}.port"), "Required value");
            }
            Some(port) => {
                check.port(&format!("{path}.port.number"), port.number);
                check.protocol(&format!("{path}.port.protocol"), &port.protocol);
            }
        }
        bind(&path, &listener.bind, check);
        if let Some(tls) = &listener.tls {
            gateway::tls(&format!("{path}.tls"), tls, check);
        }
        let endpoint = &listener.default_endpoint;
        let address =
            endpoint.rsplit_once(':').map(|(address, port)| (address, port.parse::<u16>()));
        let known = endpoint.is_empty()
            || endpoint.starts_with("unix://")
            || matches!(address, Some(("127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]", Ok(_))));
        if !known {
            let reason =
                "must be 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///PATH";
            check.invalid(&format!("{path}.defaultEndpoint"), format!("{endpoint:?}"), reason);
        }
    }
}

fn egress(spec: &Sidecar, check: &mut Check<'_>) {
    let catch_all = spec.egress.iter().filter(|listener| listener.port.is_none()).count();
    if catch_all > 1 {
        check.error(
            "spec.egress",
            "only one listener may have no port: it takes what no other does",
        );
    }
    for (at, listener) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{at}]");
        if let Some(port) = &listener.port {
            // A Unix socket has no number.
            if port.number > 0 || !listener.bind.starts_with("unix://") {
                check.port(&format!("{path}.port.number"), port.number);
            }
            check.protocol(&format!("{path}.port.protocol"), &port.protocol);
        }
        bind(&path, &listener.bind, check);
        if listener.hosts.is_empty() {
            check.error(&format!("{path}.hosts"), "Required value");
        }
        for (index, name) in listener.hosts.iter().enumerate() {
            let path = format!("{path}.hosts[{index}]");
            match name.split_once('/') {
                Some(("~", "*")) => {}
                Some(("~", _)) => {
                    check.invalid(&path, format!("{name:?}"), "'~' goes only with '*'");
                }
                Some(_) => gateway::gateway_host(&path, name, check),
                None => {
                    let reason = "must be namespace/host, ./host or */host";
                    check.invalid(&path, format!("{name:?}"), reason);
                }
            }
        }
    }
    let policy = spec.outbound_traffic_policy.as_ref();
    if let Some(proxy) = policy.and_then(|policy| policy.egress_proxy.as_ref()) {
        check.wildcard_host("spec.outboundTrafficPolicy.egressProxy.host", &proxy.host);
    }
}

fn bind(path: &str, bind: &str, check: &mut Check<'_>) {
    if !bind.is_empty() && !bind.starts_with("unix://") && !host::is_ip(bind) {
        let reason = "must be an IP address, or unix:// and a path";
        check.invalid(&format!("{path}.bind"), format!("{bind:?}"), reason);
    }
}
