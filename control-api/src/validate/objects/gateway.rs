//! Istio's `Gateway`: servers with a port, hosts and what their TLS needs.

use super::check::Check;
use super::host;
use crate::model::istio::gateway::{
    Gateway, Port, Server, ServerTlsSettings, TlsMode, TlsProtocol,
};

pub(super) fn check(spec: &Gateway, check: &mut Check<'_>) {
    if spec.servers.is_empty() {
        check.error("spec.servers", "gateway must have at least one server");
    }
    let names = spec.servers.iter().filter_map(|server| Some(server.port.as_ref()?.name.as_str()));
    check.unique("spec.servers", "port.name", names.filter(|name| !name.is_empty()));
    for (index, server) in spec.servers.iter().enumerate() {
        self::server(&format!("spec.servers[{index}]"), server, check);
    }
}

fn server(path: &str, server: &Server, check: &mut Check<'_>) {
    if server.hosts.is_empty() {
        check.error(&format!("{path}.hosts"), "server config must contain at least one host");
    }
    for (at, name) in server.hosts.iter().enumerate() {
        gateway_host(&format!("{path}.hosts[{at}]"), name, check);
    }
    let Some(port) = &server.port else {
        check.error(&format!("{path}.port"), "Required value");
        return;
    };
    self::port(path, port, &server.bind, check);
    let tls = server.tls.as_ref();
    if let Some(tls) = tls {
        self::tls(&format!("{path}.tls"), tls, check);
        if !host::is_tls(&port.protocol) {
            let plain = tls.https_redirect
                && tls.server_certificate.is_empty()
                && tls.private_key.is_empty()
                && tls.ca_certificates.is_empty();
            if !host::is_http(&port.protocol) {
                check.error(
                    &format!("{path}.tls"),
                    "server cannot have TLS settings for non HTTPS/TLS ports",
                );
            } else if !plain {
                let reason = "server cannot have TLS settings for plain text HTTP ports";
                check
                    .error(&format!("{path}.tls"), reason)
                    .fix("only httpsRedirect may be set here");
            }
        }
        if tls.https_redirect && !host::is_http(&port.protocol) {
            let reason = "should only be used with http servers";
            check.warn(&format!("{path}.tls.httpsRedirect"), reason);
        }
    } else if host::is_tls(&port.protocol) {
        let reason = "server must have TLS settings for HTTPS/TLS protocols";
        check.error(&format!("{path}.tls"), reason);
    }
}

/// `host`, `namespace/host`, `./host` or `*/host`.
pub(super) fn gateway_host(path: &str, name: &str, check: &mut Check<'_>) {
    let host = match name.split_once('/') {
        None => name,
        Some((namespace, host)) => {
            if !matches!(namespace, "*" | ".") && !host::is_dns_label(namespace) {
                let reason = "before the '/' there must be a namespace, '.' or '*'";
                check.invalid(path, format!("{name:?}"), reason);
            }
            host
        }
    };
    check.wildcard_host(path, host);
}

fn port(path: &str, port: &Port, bind: &str, check: &mut Check<'_>) {
    if port.number > 0 || !bind.starts_with("unix://") {
        check.port(&format!("{path}.port.number"), port.number);
    }
    check.required(&format!("{path}.port.name"), &port.name);
    check.required(&format!("{path}.port.protocol"), &port.protocol);
    check.protocol(&format!("{path}.port.protocol"), &port.protocol);
    if port.target_port != 0 {
        check.error(&format!("{path}.port.targetPort"), "targetPort has no impact on Gateways");
    }
    if !bind.is_empty() && !bind.starts_with("unix://") && !host::is_ip(bind) {
        let reason = "must be an IP address, or unix:// and a path";
        check.invalid(&format!("{path}.bind"), format!("{bind:?}"), reason);
    }
}

pub(super) fn tls(path: &str, tls: &ServerTlsSettings, check: &mut Check<'_>) {
    let old = matches!(tls.min_protocol_version, TlsProtocol::Tlsv10 | TlsProtocol::Tlsv11);
    if old {
        let reason = "TLS before 1.2 is broken, and not spoken";
        check.warn(&format!("{path}.minProtocolVersion"), reason);
    }
    let sources = [
        (!tls.server_certificate.is_empty() || !tls.private_key.is_empty(), "serverCertificate"),
        (!tls.credential_name.is_empty(), "credentialName"),
        (!tls.credential_names.is_empty(), "credentialNames"),
        (!tls.tls_certificates.is_empty(), "tlsCertificates"),
    ];
    let given: Vec<_> = sources.iter().filter(|source| source.0).map(|source| source.1).collect();
    match tls.mode {
        TlsMode::IstioMutual => {
            for field in given {
                let reason = "ISTIO_MUTUAL has certificates of its own";
                check.error(&format!("{path}.{field}"), reason);
            }
            return;
        }
        TlsMode::Passthrough | TlsMode::AutoPassthrough => {
            if !tls.https_redirect {
                for field in given {
                    let reason = "is ignored: with PASSTHROUGH, TLS does not end here";
                    check.warn(&format!("{path}.{field}"), reason);
                }
            }
            return;
        }
        TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual => {}
    }
    if given.len() > 1 {
        check.error(path, format!("only one of {} can be set", given.join(", ")));
    }
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        if !tls.ca_crl.is_empty() {
            let reason = "has no effect with credentialName: the list belongs into the secret";
            check.error(&format!("{path}.caCrl"), reason);
        }
        return;
    }
    if tls.tls_certificates.is_empty() {
        check.required(&format!("{path}.serverCertificate"), &tls.server_certificate);
        check.required(&format!("{path}.privateKey"), &tls.private_key);
    }
    for (at, pair) in tls.tls_certificates.iter().enumerate() {
        let path = format!("{path}.tlsCertificates[{at}]");
        check.required(&format!("{path}.serverCertificate"), &pair.server_certificate);
        check.required(&format!("{path}.privateKey"), &pair.private_key);
    }
    if tls.mode != TlsMode::Simple {
        check.required(&format!("{path}.caCertificates"), &tls.ca_certificates);
    } else if !tls.ca_crl.is_empty() {
        check.error(&format!("{path}.caCrl"), "CRL is not supported with SIMPLE TLS");
    }
}
