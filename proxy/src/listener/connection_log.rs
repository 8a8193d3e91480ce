//! The access logs of a listener: a line for each connection, when it has ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::filters::Seen;
use super::serve::downstream;
use crate::config::access_log::LogKind;
use crate::config::format::{Facts, Operator, millis};
use crate::config::matcher::RequestHead;
use crate::config::metadata::{Metadata, MetadataOf};
use crate::http::connection::Downstream;
use crate::http::ends::{self, number, text};
use crate::http::request_id::uuid;
use crate::http::stream::Upstream;
use crate::snapshot::{FilterChain, Listener};
use crate::telemetry::access_log::LogFacts;
use crate::telemetry::response_flags::ResponseFlags;
use crate::worker::{Moment, Worker};

/// A connection that its listener logs, once this is dropped.
pub(super) struct ConnectionLog {
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    chain: Option<Arc<FilterChain>>,
    downstream: Downstream,
    upstream: Upstream,
    start: Moment,
    random: u64,
}

impl ConnectionLog {
    /// Logs a connection to `listener` that began at `start` and is served by `chain`, or by none; none if the
    /// listener logs nothing.
    pub(super) fn of(
        worker: &Rc<Worker>,
        listener: &Arc<Listener>,
        chain: Option<&Arc<FilterChain>>,
        seen: &Seen,
        start: Moment,
    ) -> Option<Self> {
        if listener.config.access_logs.is_empty() {
            return None;
        }
        let name = Arc::clone(&listener.config.name);
        let server_name = seen.server_name.clone();
        Some(Self {
            downstream: downstream(worker, name, seen, None, server_name),
            worker: Rc::clone(worker),
            listener: Arc::clone(listener),
            chain: chain.map(Arc::clone),
            upstream: Upstream::default(),
            start,
            random: worker.random(),
        })
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        for log in &self.listener.config.access_logs {
            self.worker.log.log(log, LogKind::NotSet, self);
        }
    }
}

impl Facts for ConnectionLog {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::StartTime(format) => {
                format.write(self.start.wall, out);
                true
            }
            Operator::EmitTime(format) => {
                format.write(SystemTime::now(), out);
                true
            }
            Operator::Duration => number(millis(self.duration()), out),
            Operator::ResponseFlags => self.flags().write_short(out),
            Operator::ResponseFlagsLong => self.flags().write_long(out),
            Operator::ResponseFlagsNumber => number(self.flags().bits().into(), out),
            // What serves a connection counts these for itself.
            Operator::ResponseCode
            | Operator::BytesReceived
            | Operator::BytesSent
            | Operator::RequestHeadersBytes
            | Operator::ResponseHeadersBytes
            | Operator::ResponseTrailersBytes => number(0, out),
            Operator::FilterChainName => self
                .chain
                .as_ref()
                .is_some_and(|chain| chain.config.is_named && text(&chain.config.name, out)),
            Operator::ListenerDirection => number(self.listener.config.direction.number(), out),
            Operator::UniqueId => uuid(self.downstream.id, self.random, out),
            _ => {
                let client = self.downstream.remote;
                ends::write(&self.downstream, client, &self.upstream, operator, out)
                    .unwrap_or(false)
            }
        }
    }

    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        let packed = match of {
            MetadataOf::Listener => self.listener.config.metadata.as_ref(),
            MetadataOf::ListenerFilterChain => {
                self.chain.as_ref().and_then(|chain| chain.config.metadata.as_ref())
            }
            _ => None,
        };
        if let Some(packed) = packed {
            read(&packed.unpack());
        }
    }
}

impl LogFacts for ConnectionLog {
    fn response_code(&self) -> u16 {
        0
    }

    fn duration(&self) -> Duration {
        self.start.instant.elapsed()
    }

    /// Without a chain, there was none to be found.
    fn flags(&self) -> ResponseFlags {
        match self.chain {
            Some(_) => ResponseFlags::default(),
            None => ResponseFlags::NO_ROUTE_FOUND,
        }
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
