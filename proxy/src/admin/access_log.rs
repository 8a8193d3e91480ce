//! The admin API's own access log: who asked for what, and what came of it (Envoy `admin.access_log`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::HttpBody;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

use crate::config::access_log::{AccessLog, LogKind};
use crate::config::format::{Facts, HeaderChoice, Operator, PathOf, millis};
use crate::config::matcher::{HeaderRef, RequestHead};
use crate::http::ends::{number, text, version};
use crate::telemetry::access_log::{AccessLogger, LogFacts};
use crate::telemetry::response_flags::ResponseFlags;

/// Where requests to the admin API are logged.
#[derive(Debug, Clone)]
pub struct AdminLog {
    /// In which form, into which files.
    pub logs: Arc<[Arc<AccessLog>]>,
    /// The writer.
    pub writer: AccessLogger,
}

/// Both ends of a connection to the API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    local: Option<SocketAddr>,
    remote: SocketAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { local: stream.io().local_addr().ok(), remote: *stream.remote_addr() }
    }
}

/// Answers a request, and logs it.
pub(super) async fn logged(
    State(log): State<AdminLog>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let (wall, start) = (SystemTime::now(), Instant::now());
    let (request, body) = request.into_parts();
    let asked = request.clone();
    let response = next.run(Request::from_parts(request, body)).await;
    let exchange = Exchange {
        wall,
        start,
        ends,
        authority: asked.headers.get(http::header::HOST).and_then(|it| it.to_str().ok()),
        path: asked.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        request: &asked,
        status: response.status(),
        headers: response.headers(),
        length: response.body().size_hint().exact().unwrap_or(0),
    };
    // Its lines are handed over when it is dropped: these requests are few.
    let lines = log.writer.buffer();
    log.logs.iter().for_each(|log| lines.log(log, LogKind::NotSet, &exchange));
    response
}

/// A request and its answer.
struct Exchange<'a> {
    wall: SystemTime,
    start: Instant,
    ends: Ends,
    authority: Option<&'a str>,
    path: &'a str,
    request: &'a Parts,
    status: StatusCode,
    headers: &'a HeaderMap,
    length: u64,
}

impl Exchange<'_> {
    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.request.method,
            scheme: "http",
            authority: self.authority.unwrap_or_default(),
            path_and_query: self.path,
            headers: &self.request.headers,
        }
    }

    fn address(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let Ends { local, remote } = self.ends;
        let (address, with_port) = match operator {
            Operator::DownstreamRemoteAddress | Operator::DownstreamDirectRemoteAddress => {
                (Some(remote), true)
            }
            Operator::DownstreamRemoteAddressWithoutPort
            | Operator::DownstreamDirectRemoteAddressWithoutPort => (Some(remote), false),
            Operator::DownstreamLocalAddress => (local, true),
            Operator::DownstreamLocalAddressWithoutPort => (local, false),
            _ => return false,
        };
        address.is_some_and(|it| {
            let shown = if with_port { it.to_string() } else { it.ip().to_string() };
            text(&shown, out)
        })
    }
}

impl Facts for Exchange<'_> {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::Req(HeaderChoice { first, second }) => {
                let mut write = |header: &HeaderRef| {
                    header.value(&self.head()).map(|value| out.extend_from_slice(&value))
                };
                write(first).or_else(|| write(second.as_ref()?)).is_some()
            }
            Operator::Resp(HeaderChoice { first, second }) => {
                let mut write = |header: &HeaderRef| {
                    let HeaderRef::Named(name) = header else { return None };
                    self.headers.get(name).map(|value| out.extend_from_slice(value.as_bytes()))
                };
                write(first).or_else(|| write(second.as_ref()?)).is_some()
            }
            Operator::Path { of: PathOf::Original, .. } => false,
            Operator::Path { query: true, .. } => text(self.path, out),
            Operator::Path { query: false, .. } => text(self.head().path(), out),
            Operator::QueryParams => self.head().query().is_some_and(|query| text(query, out)),
            Operator::Protocol => text(version(self.request.version), out),
            Operator::ResponseCode => number(self.status.as_u16().into(), out),
            Operator::ResponseCodeDetails => text("admin_filter_response", out),
            Operator::ResponseFlags => self.flags().write_short(out),
            Operator::ResponseFlagsLong => self.flags().write_long(out),
            // What follows a head is not read: no path wants it.
            Operator::BytesReceived => number(0, out),
            Operator::BytesSent => number(self.length, out),
            Operator::Duration => number(millis(self.duration()), out),
            Operator::StartTime(format) => {
                format.write(self.wall, out);
                true
            }
            Operator::EmitTime(format) => {
                format.write(SystemTime::now(), out);
                true
            }
            Operator::Hostname => text(crate::net::hostname(), out),
            _ => self.address(operator, out),
        }
    }
}

impl LogFacts for Exchange<'_> {
    fn response_code(&self) -> u16 {
        self.status.as_u16()
    }

    fn duration(&self) -> Duration {
        self.start.elapsed()
    }

    fn flags(&self) -> ResponseFlags {
        ResponseFlags::default()
    }

    fn request(&self) -> Option<RequestHead<'_>> {
        Some(self.head())
    }

    fn grpc_status(&self) -> Option<u16> {
        None
    }

    fn is_traced(&self) -> bool {
        false
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
