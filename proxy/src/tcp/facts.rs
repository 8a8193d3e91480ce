//! What format strings and log filters read of a session: Envoy's command operators, answered.

use std::time::Duration;

use serde_json::Value;

use super::{Refusal, Session};
use crate::config::format::{Facts, Operator, TimePoint, millis};
use crate::config::matcher::RequestHead;
use crate::config::metadata::{Metadata, MetadataOf};
use crate::http::ends::{self, number, text};
use crate::http::request_id::uuid;
use crate::telemetry::access_log::LogFacts;
use crate::telemetry::response_flags::ResponseFlags;

impl Session {
    /// From the connection's first byte to now, and nothing else: where a session has been is not kept.
    fn span(&self, from: TimePoint, to: TimePoint) -> Option<Duration> {
        let whole = (TimePoint::DownstreamRxBegin, TimePoint::DownstreamTxEnd);
        ((from, to) == whole).then(|| self.start.instant.elapsed())
    }
}

impl Facts for Session {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let (start, upstream) = (&self.start, &self.upstream.borrow());
        match operator {
            Operator::StartTime(format) => {
                format.write(start.wall, out);
                true
            }
            Operator::EmitTime(format) => {
                format.write(std::time::SystemTime::now(), out);
                true
            }
            Operator::Duration => number(millis(start.instant.elapsed()), out),
            Operator::BytesReceived => number(self.ledger.received(), out),
            Operator::BytesSent => number(self.ledger.sent(), out),
            Operator::ResponseCode => number(0, out),
            Operator::ResponseFlags => self.ledger.flags().write_short(out),
            Operator::ResponseFlagsLong => self.ledger.flags().write_long(out),
            Operator::FilterChainName => {
                let chain = &self.chain.config;
                chain.is_named && text(&chain.name, out)
            }
            Operator::ConnectionTerminationDetails => {
                matches!(self.refusal.get(), Some(Refusal::Policy(it)) if text(it, out))
            }
            Operator::ResponseCodeDetails => {
                matches!(self.refusal.get(), Some(Refusal::Service(it)) if text(it, out))
            }
            Operator::ResponseFlagsNumber => number(self.ledger.flags().bits().into(), out),
            Operator::RequestHeadersBytes
            | Operator::ResponseHeadersBytes
            | Operator::ResponseTrailersBytes => number(0, out),
            Operator::CommonDuration { from, to, unit } => {
                self.span(*from, *to).is_some_and(|span| number(unit.of(span), out))
            }
            Operator::StreamId => uuid(self.random, self.downstream.id, out),
            Operator::ListenerDirection => {
                let snapshot = self.worker.snapshot();
                let listener = snapshot.listeners.get(&self.downstream.listener);
                listener.is_some_and(|it| number(it.config.direction.number(), out))
            }
            Operator::UniqueId => uuid(self.downstream.id, self.random, out),
            _ => ends::write(&self.downstream, self.downstream.remote, upstream, operator, out)
                .unwrap_or(false),
        }
    }

    fn with_filter_state(&self, key: &str, read: &mut dyn FnMut(&Value)) {
        self.downstream.dynamic.borrow().state(key).as_deref().into_iter().for_each(read);
    }

    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        if of == MetadataOf::Dynamic {
            self.downstream.dynamic.borrow().metadata().into_iter().for_each(read);
            return;
        }
        let snapshot = self.worker.snapshot();
        let upstream = &self.upstream.borrow();
        ends::with_metadata(&snapshot, &self.downstream, &self.chain, upstream, of, read);
    }
}

impl LogFacts for Session {
    fn response_code(&self) -> u16 {
        0
    }

    fn duration(&self) -> Duration {
        self.start.instant.elapsed()
    }

    fn flags(&self) -> ResponseFlags {
        self.ledger.flags()
    }

    fn request(&self) -> Option<RequestHead<'_>> {
        None
    }

    fn grpc_status(&self) -> Option<u16> {
        None
    }

    fn is_traced(&self) -> bool {
        false
    }

    fn random(&self) -> u64 {
        self.random
    }
}
