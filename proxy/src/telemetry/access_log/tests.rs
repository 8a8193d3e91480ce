//! Lines, filters, and what happens when the disk is slow.

use std::path::PathBuf;

use http::{HeaderMap, Method};

use super::*;
use crate::config::access_log::{Comparison, ComparisonOp, JsonFormat, LogFilter, LogFormat};
use crate::config::expression::Expression;
use crate::config::format::{Format, Operator};

/// A request whose user agent is `agent` and that was answered with `status`.
struct Request {
    agent: &'static [u8],
    status: u16,
    flags: ResponseFlags,
    headers: HeaderMap,
}

fn request(agent: &'static [u8], status: u16) -> Request {
    Request { agent, status, flags: ResponseFlags::default(), headers: HeaderMap::new() }
}

impl Facts for Request {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::ResponseCode => out.extend_from_slice(self.status.to_string().as_bytes()),
            Operator::Req(_) => out.extend_from_slice(self.agent),
            Operator::ResponseFlags => return self.flags.write_short(out),
            _ => return false,
        }
        true
    }
}

impl LogFacts for Request {
    fn response_code(&self) -> u16 {
        self.status
    }

    fn duration(&self) -> Duration {
        Duration::from_millis(12)
    }

    fn flags(&self) -> ResponseFlags {
        self.flags
    }

    fn request(&self) -> Option<RequestHead<'_>> {
        Some(RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path_and_query: "/",
            headers: &self.headers,
        })
    }

    fn grpc_status(&self) -> Option<u16> {
        None
    }

    fn is_traced(&self) -> bool {
        false
    }

    fn random(&self) -> u64 {
        49
    }
}

fn text(line: &str, path: PathBuf) -> AccessLog {
    let line = Format::parse(line).unwrap();
    let format = LogFormat::Text { line, omit_empty: false };
    let logger = Logger::Lines { sink: LogSink::File(path), format };
    AccessLog { logger, filter: None }
}

fn line(format: &LogFormat, facts: &Request) -> String {
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    let event = Event { kind: LogKind::DownstreamEnd, facts };
    line::write(format, &event, &mut scratch, &mut out);
    assert!(scratch.is_empty());
    String::from_utf8(out).unwrap()
}

fn json(omit_empty: bool) -> LogFormat {
    let text = |format: &str| JsonFormat::Text(Format::parse(format).unwrap());
    let object = JsonFormat::Object(vec![
        ("absent".into(), text("%ROUTE_NAME%")),
        ("agent".into(), text("%REQ(USER-AGENT)%")),
        ("code".into(), text("%RESPONSE_CODE%")),
        ("list".into(), JsonFormat::List(vec![text("%ROUTE_NAME%"), text("x")])),
        ("mixed".into(), text("%RESPONSE_CODE% %ROUTE_NAME%")),
        ("one".into(), JsonFormat::Constant(serde_json::json!(1))),
        ("sub".into(), JsonFormat::Object(vec![("absent".into(), text("%ROUTE_NAME%"))])),
    ]);
    LogFormat::Json { object, omit_empty }
}

#[test]
fn a_value_cannot_start_a_line_of_its_own() {
    let log = text("[%REQ(USER-AGENT)%] %ROUTE_NAME%\n", PathBuf::new());
    let Logger::Lines { format, .. } = &log.logger else { panic!("it writes lines") };
    let forged = line(format, &request(b"a\n[b\x1b[31m", 200));
    assert_eq!(forged, "[a?[b?[31m] -\n");
}

#[test]
fn json_values_keep_their_type_and_are_escaped() {
    let facts = request(b"a\"\n\xff", 200);
    assert_eq!(
        line(&json(false), &facts),
        "{\"absent\":null,\"agent\":\"a\\\"\\n\u{fffd}\",\"code\":200,\"list\":[null,\"x\"],\
         \"mixed\":\"200 -\",\"one\":1,\"sub\":{\"absent\":null}}\n"
    );
    assert_eq!(
        line(&json(true), &facts),
        "{\"agent\":\"a\\\"\\n\u{fffd}\",\"code\":200,\"list\":[null,\"x\"],\"mixed\":\"200 \",\
         \"one\":1,\"sub\":{}}\n"
    );
}

#[test]
fn filters_choose_requests() {
    let at_least = |value| LogFilter::Status(Comparison { op: ComparisonOp::AtLeast, value });
    let slow = LogFilter::Duration(Comparison { op: ComparisonOp::AtMost, value: 11 });
    let facts = request(b"", 503);
    let facts = Event { kind: LogKind::DownstreamEnd, facts: &facts };
    assert!(filter::passes(&at_least(500), &facts));
    assert!(!filter::passes(&at_least(504), &facts));
    assert!(!filter::passes(&slow, &facts));
    assert!(filter::passes(&LogFilter::Or(vec![slow.clone(), at_least(1)]), &facts));
    assert!(!filter::passes(&LogFilter::And(vec![slow, at_least(1)]), &facts));
    let unavailable = |exclude| LogFilter::GrpcStatus { codes: vec![14], exclude };
    assert!(filter::passes(&unavailable(false), &facts));
    assert!(!filter::passes(&unavailable(true), &facts));
    let kinds = |exclude| LogFilter::Kind { kinds: vec![LogKind::DownstreamEnd], exclude };
    assert!(filter::passes(&kinds(false), &facts));
    assert!(!filter::passes(&kinds(true), &facts));
    let absent = |if_absent| LogFilter::Metadata { matcher: None, if_absent };
    assert!(filter::passes(&absent(true), &facts));
    assert!(!filter::passes(&absent(false), &facts));
    let expression = |text| LogFilter::Expression(Expression::parse(text).unwrap());
    assert!(filter::passes(&expression("response.code >= 500"), &facts));
    assert!(!filter::passes(&expression("response.code >= 504"), &facts));
}

#[test]
fn a_response_flag_filter_asks_for_one_of_its_flags() {
    let mut facts = request(b"", 503);
    let any = LogFilter::ResponseFlag(Vec::new());
    let overflow = LogFilter::ResponseFlag(vec!["UO".into(), "NR".into()]);
    let passes = |filter, facts: &Request| {
        filter::passes(filter, &Event { kind: LogKind::DownstreamEnd, facts })
    };
    assert!(!passes(&any, &facts));
    facts.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    assert!(passes(&any, &facts));
    assert!(!passes(&overflow, &facts));
    facts.flags |= ResponseFlags::UPSTREAM_OVERFLOW;
    assert!(passes(&overflow, &facts));
}

#[tokio::test]
async fn lines_reach_the_file_and_a_rotated_one_is_let_go_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let metrics = Arc::new(Metrics::default());
    let logger = AccessLogger::start(Arc::clone(&metrics)).unwrap();
    let buffer = logger.buffer();
    let log = text("%RESPONSE_CODE%\n", path.clone());
    buffer.log(&log, LogKind::DownstreamEnd, &request(b"", 200));
    buffer.flush();
    assert!(logger.flush(Duration::from_secs(5)).await);
    std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
    logger.reopen();
    buffer.log(&log, LogKind::DownstreamEnd, &request(b"", 404));
    drop(buffer);
    assert!(logger.flush(Duration::from_secs(5)).await);
    assert_eq!(std::fs::read(&path).unwrap(), b"404\n");
    assert_eq!(std::fs::read(directory.path().join("access.log.1")).unwrap(), b"200\n");
    assert_eq!(metrics.server().log_write_completed.get(), 2);
    assert_eq!(metrics.server().log_write_total_buffered.get(), 0);
}

#[tokio::test]
async fn a_line_does_not_wait_for_its_block_to_fill() {
    let directory = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let logger = AccessLogger::start(Arc::clone(&metrics)).unwrap();
    let buffer = logger.buffer();
    let log = text("%RESPONSE_CODE%\n", directory.path().join("access.log"));
    let logging = async {
        buffer.log(&log, LogKind::DownstreamEnd, &request(b"", 200));
        assert_eq!(metrics.server().log_write_buffered.get(), 0);
        while metrics.server().log_write_buffered.get() == 0 {
            tokio::time::sleep(FLUSH_INTERVAL / 4).await;
        }
    };
    tokio::select! {
        () = logging => {}
        () = buffer.keep_flushing() => {}
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_lines_but_neither_time_nor_memory() {
    let metrics = Arc::new(Metrics::default());
    let logger = AccessLogger::start(Arc::clone(&metrics)).unwrap();
    let buffer = logger.buffer();
    let log = text("%RESPONSE_CODE%\n", "/dev/full".into());
    buffer.log(&log, LogKind::DownstreamEnd, &request(b"", 200));
    buffer.flush();
    assert!(logger.flush(Duration::from_secs(5)).await);
    assert_eq!(metrics.server().log_write_failed.get(), 1);
    assert_eq!(metrics.server().log_write_dropped.get(), 1);
}

#[tokio::test]
async fn lines_are_dropped_and_counted_when_the_queue_is_full() {
    let metrics = Arc::new(Metrics::default());
    let (queue, _unread) = mpsc::channel(1);
    let logger = AccessLogger { queue, ..AccessLogger::start(Arc::clone(&metrics)).unwrap() };
    let buffer = logger.buffer();
    let log = text("%RESPONSE_CODE%\n", "/dev/null".into());
    for _ in 0..BLOCK_SIZE {
        buffer.log(&log, LogKind::DownstreamEnd, &request(b"", 200));
    }
    drop(buffer);
    // Four bytes a line: the first block waits in the queue, three had to go.
    assert_eq!(metrics.server().log_write_buffered.get(), 1);
    assert_eq!(metrics.server().log_write_dropped.get(), BLOCK_SIZE as u64 / 4 * 3);
    assert_eq!(metrics.server().log_write_total_buffered.get(), BLOCK_SIZE as i64);
    assert!(!logger.flush(Duration::from_millis(1)).await);
}
