//! What format strings and log filters read of a stream: Envoy's command operators, answered.
//!
//! The operators are answered in groups; each group says `None` to what it does not know.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use http::Version;

use super::names;
use super::stream::{Stream, Upstream};
use crate::config::address::HostAddress;
use crate::config::format::{Facts, HeaderChoice, Operator, PathOf, Peer, TimePoint, millis};
use crate::config::matcher::HeaderRef;
use crate::tls::certificate::Certificate;
use crate::tls::peer::PeerInfo;

impl Facts for Stream {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.request(operator, out)
            .or_else(|| self.response(operator, out))
            .or_else(|| self.times(operator, out))
            .or_else(|| self.downstream(operator, out))
            .or_else(|| upstream(&self.upstream.borrow(), operator, out))
            .or_else(|| self.peers(operator, out))
            .unwrap_or(false)
    }
}

fn text(value: &str, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.as_bytes());
    !value.is_empty()
}

fn number(value: u64, out: &mut Vec<u8>) -> bool {
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

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

impl Stream {
    fn request(&self, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let Operator::Req(choice) = operator else { return self.target(operator, out) };
        let Some(head) = self.head() else { return Some(false) };
        let mut write = |header: &HeaderRef| match header {
            HeaderRef::Named(name) if *name == names::X_ENVOY_ORIGINAL_PATH => {
                self.original_path().is_some_and(|path| text(path, out))
            }
            header => header.value(&head.view()).is_some_and(|value| {
                out.extend_from_slice(&value);
                true
            }),
        };
        Some(write(&choice.first) || choice.second.as_ref().is_some_and(write))
    }

    fn target(&self, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let head = self.head();
        let query = || head.and_then(|head| head.view().query());
        Some(match operator {
            Operator::Path { query, of } => {
                let path = head.map(|head| &*head.path);
                let path = match of {
                    PathOf::OriginalOrPath => self.original_path().or(path),
                    PathOf::Original => self.original_path(),
                    PathOf::Path => path,
                };
                let bare = |path: &'_ str| path.find('?').filter(|_| !query).unwrap_or(path.len());
                path.is_some_and(|path| text(&path[..bare(path)], out))
            }
            Operator::QueryParams => query().is_some_and(|query| text(query, out)),
            Operator::QueryParam(wanted) => query()
                .into_iter()
                .flat_map(|query| query.split('&'))
                .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == &**wanted))
                .is_some_and(|(_, value)| text(value, out)),
            Operator::Protocol => head.is_some_and(|head| text(version(head.version), out)),
            Operator::BytesReceived => number(self.bytes_received(), out),
            Operator::RouteName => self.route_name().is_some_and(|name| text(name, out)),
            Operator::VirtualClusterName => {
                self.virtual_cluster().is_some_and(|name| text(name, out))
            }
            Operator::FilterChainName => text(&self.served.chain.config.name, out),
            Operator::UniqueId => write!(out, "{:016x}{:016x}", self.random(), self.id).is_ok(),
            Operator::StreamId => number(self.id, out),
            Operator::TraceId => {
                self.trace().is_some_and(|trace| write!(out, "{:032x}", trace.trace_id).is_ok())
            }
            _ => return None,
        })
    }

    fn route_name(&self) -> Option<&str> {
        Some(&self.table()?.route(self.route()?)?.name)
    }

    fn virtual_cluster(&self) -> Option<&str> {
        let cluster = self.table()?.virtual_cluster(self.route()?, &self.head()?.view())?;
        Some(cluster)
    }

    fn response(&self, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        Some(match operator {
            Operator::Resp(HeaderChoice { first, second }) => {
                let mut write = |header: &HeaderRef| match header {
                    HeaderRef::Named(name) => self.with_response_header(name, |value| {
                        out.extend_from_slice(value.as_bytes());
                    }),
                    _ => None,
                };
                write(first).or_else(|| write(second.as_ref()?)).is_some()
            }
            Operator::Trailer(name) => {
                self.with_trailer(name, |value| out.extend_from_slice(value.as_bytes())).is_some()
            }
            Operator::ResponseCode => {
                number(self.status().map_or(0, |status| status.as_u16().into()), out)
            }
            Operator::ResponseCodeDetails => self.with_details(|details| text(details, out)),
            Operator::ResponseFlags => self.flags().write_short(out),
            Operator::ResponseFlagsLong => self.flags().write_long(out),
            Operator::BytesSent => number(self.bytes_sent(), out),
            Operator::GrpcStatus(style) => self.grpc_code().is_some_and(|code| {
                style.write(code, out);
                true
            }),
            _ => return None,
        })
    }

    /// The gRPC status of the response, from its trailers or else its headers.
    pub fn grpc_code(&self) -> Option<u16> {
        let read = |value: &http::HeaderValue| value.to_str().ok()?.parse().ok();
        self.with_trailer(&names::GRPC_STATUS, read)
            .or_else(|| self.with_response_header(&names::GRPC_STATUS, read))
            .flatten()
    }

    fn times(&self, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let start = self.start.instant;
        let since_start = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(start));
        let timeline = &self.timeline;
        let duration = match operator {
            Operator::StartTime(format) => {
                format.write(self.start.wall, out);
                return Some(true);
            }
            Operator::EmitTime(format) => {
                format.write(std::time::SystemTime::now(), out);
                return Some(true);
            }
            Operator::Duration => Some(self.age()),
            Operator::RequestDuration => since_start(timeline.request_end.get()),
            Operator::RequestTxDuration => since_start(timeline.upstream_request_end()),
            Operator::ResponseDuration => since_start(timeline.response_begin.get()),
            Operator::ResponseTxDuration => {
                timeline.response_begin.get().map(|begin| begin.elapsed())
            }
            Operator::CommonDuration { from, to, unit } => {
                let spent = self.moment(*from).zip(self.moment(*to));
                let spent = spent.and_then(|(from, to)| to.checked_duration_since(from));
                return Some(spent.is_some_and(|spent| number(unit.of(spent), out)));
            }
            _ => return None,
        };
        Some(duration.is_some_and(|duration| number(millis(duration), out)))
    }

    fn moment(&self, point: TimePoint) -> Option<Instant> {
        let timeline = &self.timeline;
        match point {
            TimePoint::DownstreamRxBegin => Some(self.start.instant),
            TimePoint::DownstreamRxEnd => timeline.request_end.get(),
            TimePoint::UpstreamTxBegin => timeline.upstream_begin.get(),
            TimePoint::UpstreamTxEnd => timeline.upstream_request_end(),
            TimePoint::UpstreamRxBegin | TimePoint::DownstreamTxBegin => {
                timeline.response_begin.get()
            }
            TimePoint::UpstreamRxEnd | TimePoint::DownstreamTxEnd => Some(Instant::now()),
            TimePoint::UpstreamConnectBegin
            | TimePoint::UpstreamConnectEnd
            | TimePoint::UpstreamHandshakeEnd => None,
        }
    }

    fn downstream(&self, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let downstream = &self.connection.downstream;
        Some(match operator {
            Operator::DownstreamLocalAddress => address(downstream.local, true, out),
            Operator::DownstreamLocalAddressWithoutPort => address(downstream.local, false, out),
            Operator::DownstreamLocalPort => number(downstream.local.port().into(), out),
            Operator::DownstreamRemoteAddress => address(self.client.get(), true, out),
            Operator::DownstreamRemoteAddressWithoutPort => address(self.client.get(), false, out),
            Operator::DownstreamRemotePort => number(self.client.get().port().into(), out),
            Operator::DownstreamDirectRemoteAddress => address(downstream.direct_remote, true, out),
            Operator::DownstreamDirectRemoteAddressWithoutPort => {
                address(downstream.direct_remote, false, out)
            }
            Operator::DownstreamDirectRemotePort => {
                number(downstream.direct_remote.port().into(), out)
            }
            Operator::RequestedServerName => {
                downstream.server_name.as_deref().is_some_and(|name| text(name, out))
            }
            Operator::ConnectionId => number(downstream.id, out),
            Operator::Hostname => text(hostname(), out),
            _ => return None,
        })
    }

    fn peers(&self, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let side = match operator {
            Operator::PeerSubject(side)
            | Operator::PeerIssuer(side)
            | Operator::PeerUriSan(side)
            | Operator::PeerDnsSan(side)
            | Operator::PeerFingerprint256(side)
            | Operator::PeerSerial(side)
            | Operator::PeerCert(side)
            | Operator::LocalSubject(side)
            | Operator::LocalUriSan(side)
            | Operator::TlsVersion(side)
            | Operator::TlsCipher(side) => side,
            _ => return None,
        };
        let written = match side {
            Peer::Downstream => {
                let tls = self.connection.downstream.tls.as_ref();
                tls.is_some_and(|tls| peer(tls, operator, out))
            }
            Peer::Upstream => {
                let upstream = self.upstream.borrow();
                upstream.tls.as_deref().is_some_and(|tls| peer(tls, operator, out))
            }
        };
        Some(written)
    }
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
            Operator::PeerDnsSan(_) => text(&certificate.dns_sans().join(","), out),
            Operator::PeerFingerprint256(_) => text(certificate.sha256(), out),
            Operator::PeerSerial(_) => text(certificate.serial(), out),
            _ => text(certificate.url_encoded_pem(), out),
        }
    };
    match operator {
        Operator::TlsVersion(_) => text(tls.version(), out),
        Operator::TlsCipher(_) => text(tls.cipher(), out),
        Operator::LocalSubject(_) | Operator::LocalUriSan(_) => of(tls.local(), out),
        _ => of(tls.certificate(), out),
    }
}

fn upstream(facts: &Upstream, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
    Some(match operator {
        Operator::UpstreamHost | Operator::UpstreamRemoteAddress { with_port: true } => {
            facts.host.as_ref().is_some_and(|host| host_address(host, true, out))
        }
        Operator::UpstreamRemoteAddress { with_port: false } => {
            facts.host.as_ref().is_some_and(|host| host_address(host, false, out))
        }
        Operator::UpstreamRemotePort => {
            // Of a Unix socket it is empty, not absent.
            let mut port = |host: &HostAddress| host.ip().map(|ip| number(ip.port().into(), out));
            facts.host.as_ref().is_some_and(|host| port(host).unwrap_or(true))
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

/// This machine's name.
fn hostname() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    })
}

impl crate::telemetry::access_log::LogFacts for Stream {
    fn response_code(&self) -> u16 {
        self.status().map_or(0, |status| status.as_u16())
    }

    fn duration(&self) -> std::time::Duration {
        self.age()
    }

    fn flags(&self) -> crate::telemetry::response_flags::ResponseFlags {
        Stream::flags(self)
    }

    fn request(&self) -> Option<crate::config::matcher::RequestHead<'_>> {
        self.head().map(super::stream::Head::view)
    }

    fn grpc_status(&self) -> Option<u16> {
        self.grpc_code()
    }

    fn is_traced(&self) -> bool {
        self.trace().is_some_and(|trace| trace.sampled)
    }

    fn random(&self) -> u64 {
        Stream::random(self)
    }
}
