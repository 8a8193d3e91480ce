//! What format strings read of the two ends of a connection: the client's, and the endpoint's.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::Version;

use super::connection::Downstream;
use super::stream::Upstream;
use crate::config::address::HostAddress;
use crate::config::format::{Operator, Peer, TimeFormat};
use crate::config::metadata::{Metadata, MetadataOf};
use crate::snapshot::{FilterChain, Snapshot};
use crate::tls::certificate::Certificate;
use crate::tls::peer::PeerInfo;

/// Appends what `operator` asks about either end; none if it asks about something else. `client` is who the
/// client is taken for.
pub(crate) fn write(
    ds: &Downstream,
    client: SocketAddr,
    us: &Upstream,
    operator: &Operator,
    out: &mut Vec<u8>,
) -> Option<bool> {
    downstream(ds, client, operator, out)
        .or_else(|| upstream(us, operator, out))
        .or_else(|| peers(ds, us, operator, out))
}

/// Has the metadata read that is meant by `of`, of what lies at either end.
pub(crate) fn with_metadata(
    snapshot: &Snapshot,
    ds: &Downstream,
    chain: &FilterChain,
    us: &Upstream,
    of: MetadataOf,
    read: &mut dyn FnMut(&Metadata),
) {
    let cluster = || us.cluster.as_ref().and_then(|name| snapshot.clusters.get(name));
    let packed = match of {
        MetadataOf::Cluster => cluster().and_then(|cluster| cluster.config.metadata.as_ref()),
        MetadataOf::Listener => {
            snapshot.listeners.get(&ds.listener).and_then(|it| it.config.metadata.as_ref())
        }
        MetadataOf::ListenerFilterChain => chain.config.metadata.as_ref(),
        MetadataOf::UpstreamHost => {
            let endpoint = cluster().zip(us.host.as_ref());
            let endpoint = endpoint.and_then(|(cluster, host)| cluster.endpoint(host));
            if let Some(metadata) = endpoint.and_then(|endpoint| endpoint.metadata.as_ref()) {
                read(metadata);
            }
            return;
        }
        MetadataOf::Dynamic | MetadataOf::Route | MetadataOf::VirtualHost => return,
    };
    if let Some(packed) = packed {
        read(&packed.unpack());
    }
}

/// Appends a text; whether it is there, which an empty one is not.
pub(crate) fn text(value: &str, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.as_bytes());
    !value.is_empty()
}

/// Appends a number.
pub(crate) fn number(value: u64, out: &mut Vec<u8>) -> bool {
    write!(out, "{value}").is_ok()
}

fn address(address: SocketAddr, with_port: bool, out: &mut Vec<u8>) -> bool {
    if with_port {
        write!(out, "{address}").is_ok()
    } else {
        write!(out, "{}", address.ip()).is_ok()
    }
}

fn host_address(host: &HostAddress, with_port: bool, out: &mut Vec<u8>) -> bool {
    match host {
        HostAddress::Ip(ip) => address(*ip, with_port, out),
        HostAddress::Pipe(path) => text(path, out),
    }
}

/// A version as Envoy prints it.
pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn downstream(
    downstream: &Downstream,
    client: SocketAddr,
    operator: &Operator,
    out: &mut Vec<u8>,
) -> Option<bool> {
    let shown =
        |ip, with_port, out: &mut Vec<u8>| host_address(&downstream.shown(ip), with_port, out);
    // Of a Unix socket it is empty, not absent.
    let port = |ip: SocketAddr, out: &mut Vec<u8>| {
        downstream.shown(ip).ip().is_none_or(|ip| number(ip.port().into(), out))
    };
    Some(match operator {
        Operator::DownstreamLocalAddress => shown(downstream.local, true, out),
        Operator::DownstreamLocalAddressWithoutPort => shown(downstream.local, false, out),
        Operator::DownstreamLocalPort => port(downstream.local, out),
        Operator::DownstreamRemoteAddress => shown(client, true, out),
        Operator::DownstreamRemoteAddressWithoutPort => shown(client, false, out),
        Operator::DownstreamRemotePort => port(client, out),
        Operator::DownstreamDirectRemoteAddress => shown(downstream.direct_remote, true, out),
        Operator::DownstreamDirectRemoteAddressWithoutPort => {
            shown(downstream.direct_remote, false, out)
        }
        Operator::DownstreamDirectLocalAddress { with_port } => {
            shown(downstream.direct_local, *with_port, out)
        }
        Operator::DownstreamDirectLocalPort => port(downstream.direct_local, out),
        Operator::DownstreamDirectRemotePort => port(downstream.direct_remote, out),
        Operator::RequestedServerName => {
            downstream.server_name.as_deref().is_some_and(|name| text(name, out))
        }
        Operator::TlsCipherNumber => {
            downstream.tls.as_ref().is_some_and(|tls| number(tls.cipher_id().into(), out))
        }
        Operator::ConnectionId => number(downstream.id, out),
        Operator::Hostname => text(crate::net::hostname(), out),
        Operator::Zero => number(0, out),
        _ => return None,
    })
}

fn peers(
    downstream: &Downstream,
    upstream: &Upstream,
    operator: &Operator,
    out: &mut Vec<u8>,
) -> Option<bool> {
    let side = match operator {
        Operator::PeerSubject(side)
        | Operator::PeerIssuer(side)
        | Operator::PeerUriSan(side)
        | Operator::PeerDnsSan(side)
        | Operator::PeerIpSan(side)
        | Operator::PeerEmailSan(side)
        | Operator::PeerFingerprint1(side)
        | Operator::PeerFingerprint256(side)
        | Operator::PeerCertStart(side, _)
        | Operator::PeerCertEnd(side, _)
        | Operator::PeerSerial(side)
        | Operator::PeerCert(side)
        | Operator::LocalSubject(side)
        | Operator::LocalUriSan(side)
        | Operator::LocalDnsSan(side)
        | Operator::LocalIpSan(side)
        | Operator::LocalEmailSan(side)
        | Operator::TlsGroup(side)
        | Operator::TlsVersion(side)
        | Operator::TlsCipher(side) => side,
        _ => return None,
    };
    let tls = match side {
        Peer::Downstream => downstream.tls.as_ref(),
        Peer::Upstream => upstream.tls.as_deref(),
    };
    Some(tls.is_some_and(|tls| peer(tls, operator, out)))
}

fn peer(tls: &PeerInfo, operator: &Operator, out: &mut Vec<u8>) -> bool {
    let of = |certificate: Option<&Certificate>, out: &mut Vec<u8>| {
        let Some(certificate) = certificate else { return false };
        match operator {
            Operator::PeerSubject(_) | Operator::LocalSubject(_) => {
                text(certificate.subject(), out)
            }
            Operator::PeerIssuer(_) => text(certificate.issuer(), out),
            Operator::PeerUriSan(_) | Operator::LocalUriSan(_) => {
                text(&certificate.uri_sans().join(","), out)
            }
            Operator::PeerDnsSan(_) | Operator::LocalDnsSan(_) => {
                text(&certificate.dns_sans().join(","), out)
            }
            Operator::PeerIpSan(_) | Operator::LocalIpSan(_) => {
                let addresses = certificate.ip_sans().iter().map(ToString::to_string);
                text(&addresses.collect::<Vec<_>>().join(","), out)
            }
            Operator::PeerEmailSan(_) | Operator::LocalEmailSan(_) => {
                text(&certificate.email_sans().join(","), out)
            }
            Operator::PeerCertStart(_, format) => time(certificate.not_before(), format, out),
            Operator::PeerCertEnd(_, format) => time(certificate.not_after(), format, out),
            Operator::PeerFingerprint1(_) => text(&certificate.sha1(), out),
            Operator::PeerFingerprint256(_) => text(certificate.sha256(), out),
            Operator::PeerSerial(_) => text(certificate.serial(), out),
            _ => text(certificate.url_encoded_pem(), out),
        }
    };
    match operator {
        Operator::TlsVersion(_) => text(tls.version(), out),
        Operator::TlsCipher(_) => text(tls.cipher(), out),
        Operator::TlsGroup(_) => text(tls.group(), out),
        Operator::LocalSubject(_)
        | Operator::LocalUriSan(_)
        | Operator::LocalDnsSan(_)
        | Operator::LocalIpSan(_)
        | Operator::LocalEmailSan(_) => of(tls.local(), out),
        _ => of(tls.certificate(), out),
    }
}

fn time(at: Option<SystemTime>, format: &TimeFormat, out: &mut Vec<u8>) -> bool {
    at.is_some_and(|at| {
        format.write(at, out);
        true
    })
}

fn upstream(facts: &Upstream, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
    Some(match operator {
        Operator::UpstreamHost => {
            facts.host.as_ref().is_some_and(|host| host_address(host, true, out))
        }
        Operator::UpstreamRemoteAddress { with_port } => {
            facts.remote().is_some_and(|remote| host_address(&remote, *with_port, out))
        }
        Operator::UpstreamRemotePort => {
            // Of a Unix socket it is empty, not absent.
            let mut port = |remote: SocketAddr| number(remote.port().into(), out);
            facts.remote().is_some_and(|remote| remote.ip().is_none_or(&mut port))
        }
        Operator::UpstreamHostName => match (&facts.hostname, &facts.host) {
            (Some(name), _) if !name.is_empty() => text(name, out),
            (_, host) => host.as_ref().is_some_and(|host| host_address(host, true, out)),
        },
        Operator::UpstreamHostNameWithoutPort => match (&facts.hostname, &facts.host) {
            (Some(name), _) if !name.is_empty() => {
                text(name.rsplit_once(':').map_or(name, |(name, _)| name), out)
            }
            (_, host) => host.as_ref().is_some_and(|host| host_address(host, false, out)),
        },
        Operator::UpstreamCluster => facts.cluster.as_ref().is_some_and(|name| text(name, out)),
        Operator::UpstreamLocalAddress { with_port } => {
            facts.local.is_some_and(|local| address(local, *with_port, out))
        }
        Operator::UpstreamLocalPort => {
            facts.local.is_some_and(|local| number(local.port().into(), out))
        }
        Operator::UpstreamProtocol => {
            facts.version.is_some_and(|spoken| text(version(spoken), out))
        }
        Operator::UpstreamTransportFailureReason => {
            facts.failure.as_ref().is_some_and(|reason| text(reason, out))
        }
        Operator::UpstreamRequestAttemptCount => number(facts.attempts.into(), out),
        _ => return None,
    })
}
