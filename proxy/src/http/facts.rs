//! What format strings and log filters read of a stream: Envoy's command operators, answered.
//!
//! The operators are answered in groups; each group says `None` to what it does not know.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Instant;

use super::ends::{self, number, text, version};
use super::names;
use super::request_id::uuid;
use super::stream::{Head, Stream};
use crate::config::access_log::LogKind;
use crate::config::format::{Facts, HeaderChoice, Operator, PathOf, TimePoint, millis};
use crate::config::matcher::{HeaderRef, joined};
use crate::config::metadata::{Metadata, MetadataOf};
use crate::telemetry::trace::Propagation;

impl Facts for Stream {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.write_with(self.outgoing_head(), operator, out)
    }

    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        let table = self.table().zip(self.route());
        let packed = match of {
            MetadataOf::Route => {
                let route = table.and_then(|(table, found)| table.route(found));
                route.and_then(|route| route.metadata.as_deref()).into_iter().for_each(read);
                return;
            }
            MetadataOf::VirtualHost => {
                table.and_then(|(table, found)| table.virtual_host(found)?.metadata.as_ref())
            }
            MetadataOf::Dynamic => {
                self.dynamic().metadata().into_iter().for_each(read);
                return;
            }
            _ => {
                let connection = &self.connection.downstream;
                let (snapshot, chain) = (&self.served.snapshot, &self.served.chain);
                return ends::with_metadata(
                    snapshot,
                    connection,
                    chain,
                    &self.upstream.borrow(),
                    of,
                    read,
                );
            }
        };
        if let Some(packed) = packed {
            read(&packed.unpack());
        }
    }

    fn with_filter_state(&self, key: &str, read: &mut dyn FnMut(&serde_json::Value)) {
        self.dynamic().state(key).as_deref().into_iter().for_each(read);
    }
}

impl Stream {
    /// As `write`, for a request whose head is this by now.
    pub fn write_with(&self, head: Option<&Head>, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.request(head, operator, out)
            .or_else(|| self.response(operator, out))
            .or_else(|| self.times(operator, out))
            .or_else(|| {
                ends::write(
                    &self.connection.downstream,
                    self.client.get(),
                    &self.upstream.borrow(),
                    operator,
                    out,
                )
            })
            .unwrap_or(false)
    }

    fn request(&self, head: Option<&Head>, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let Operator::Req(choice) = operator else { return self.target(head, operator, out) };
        let Some(head) = head else { return Some(false) };
        let mut write = |header: &HeaderRef| {
            header.first(&head.view()).is_some_and(|value| {
                out.extend_from_slice(value);
                true
            })
        };
        Some(write(&choice.first) || choice.second.as_ref().is_some_and(write))
    }

    fn target(&self, head: Option<&Head>, operator: &Operator, out: &mut Vec<u8>) -> Option<bool> {
        let query = || head.and_then(|head| head.view().query());
        Some(match operator {
            Operator::Path { query, of } => path(head, *query, *of, out),
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
            Operator::FilterChainName => {
                let chain = &self.served.chain.config;
                chain.is_named && text(&chain.name, out)
            }
            Operator::UniqueId => uuid(self.id, self.random(), out),
            Operator::StreamId => {
                let id = head.and_then(|head| head.headers.get(names::X_REQUEST_ID));
                id.is_some_and(|id| {
                    out.extend_from_slice(id.as_bytes());
                    true
                })
            }
            Operator::VirtualHostName => {
                let host = self.table().zip(self.route());
                let host = host.and_then(|(table, found)| table.virtual_host(found));
                host.is_some_and(|host| text(&host.name, out))
            }
            Operator::RequestHeadersBytes => number(head.map_or(0, Head::size), out),
            Operator::AccessLogType => text(LogKind::NotSet.name(), out),
            Operator::ListenerDirection => {
                let name = &self.connection.downstream.listener;
                let listener = self.served.snapshot.listeners.get(name);
                listener.is_some_and(|it| number(it.config.direction.number(), out))
            }
            Operator::SpanId => {
                self.trace().is_some_and(|span| write!(out, "{:016x}", span.span_id).is_ok())
            }
            Operator::TraceId => {
                self.traced().and_then(|traced| traced.span).is_some_and(|(span, propagation)| {
                    match propagation {
                        Propagation::W3c { .. } => write!(out, "{:032x}", span.trace_id).is_ok(),
                        Propagation::B3 { .. } => text(&span.short_trace_id(), out),
                    }
                })
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
            Operator::ResponseFlagsNumber => number(self.flags().bits().into(), out),
            Operator::ResponseHeadersBytes => number(self.response_size(), out),
            Operator::ResponseTrailersBytes => number(self.trailers_size(), out),
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
            TimePoint::UpstreamRxBegin => timeline.response_begin.get(),
            TimePoint::UpstreamRxEnd => timeline.response_begin.get().map(|_| Instant::now()),
            TimePoint::DownstreamTxBegin => timeline.answer_begin(),
            TimePoint::DownstreamTxEnd => timeline.answer_begin().map(|_| Instant::now()),
            TimePoint::UpstreamConnectBegin
            | TimePoint::UpstreamConnectEnd
            | TimePoint::UpstreamHandshakeEnd => None,
        }
    }
}

/// Appends the path that `of` means, with its query or without.
fn path(head: Option<&Head>, query: bool, of: PathOf, out: &mut Vec<u8>) -> bool {
    let path = head.map(|head| &*head.path);
    let original = || head?.headers.get(names::X_ENVOY_ORIGINAL_PATH)?.to_str().ok();
    let path = match of {
        PathOf::OriginalOrPath => original().or(path),
        PathOf::Original => original(),
        PathOf::Path => path,
    };
    let bare = |path: &'_ str| path.find('?').filter(|_| !query).unwrap_or(path.len());
    path.is_some_and(|path| text(&path[..bare(path)], out))
}

impl crate::telemetry::access_log::LogFacts for Stream {
    fn response_code(&self) -> u16 {
        self.status().map_or(0, |status| status.as_u16())
    }

    fn duration(&self) -> std::time::Duration {
        self.age()
    }

    fn is_health_check(&self) -> bool {
        Stream::is_health_check(self)
    }

    fn flags(&self) -> crate::telemetry::response_flags::ResponseFlags {
        Stream::flags(self)
    }

    fn request(&self) -> Option<crate::config::matcher::RequestHead<'_>> {
        self.outgoing_head().map(super::stream::Head::view)
    }

    fn grpc_status(&self) -> Option<u16> {
        self.grpc_code()
    }

    fn response_header(&self, name: &http::HeaderName) -> Option<Vec<u8>> {
        self.response_header_values(name)
    }

    fn response_trailer(&self, name: &http::HeaderName) -> Option<Vec<u8>> {
        let mut found = None;
        self.with_trailers(|trailers| found = joined(trailers, name).map(Cow::into_owned));
        found
    }

    fn is_traced(&self) -> bool {
        self.traced().is_some_and(|traced| traced.reason.is_traced())
    }

    fn random(&self) -> u64 {
        Stream::random(self)
    }
}
