//! A check of a TCP port: it takes connections, and answers as expected.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::Target;
use super::find;
use super::progress::CheckResult;
use crate::config::health_check::TcpCheck;
use crate::upstream::Stream;

/// An answer is looked for among this many bytes; more is no answer.
const LONGEST_ANSWER: usize = 1 << 20;

/// Checks one host; keeps its connection from one check to the next.
#[derive(Debug)]
pub(super) struct TcpProbe {
    target: Arc<Target>,
    connection: Option<Stream>,
}

impl TcpProbe {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, connection: None }
    }

    /// Makes one check. To be dropped in the middle if it takes too long: the connection goes with it.
    pub(super) async fn check(&mut self, check: &TcpCheck) -> CheckResult {
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => match self.target.dial(None).await {
                Ok(dialed) => dialed.stream,
                Err(_) => return CheckResult::NETWORK,
            },
        };
        if check.receive.is_empty() {
            return CheckResult::Passed { degraded: false };
        }
        if stream.write_all(&check.send).await.is_err() || stream.flush().await.is_err() {
            return CheckResult::NETWORK;
        }
        let mut answer = Vec::new();
        while !find(&check.receive, &answer) {
            match stream.read_buf(&mut answer).await {
                Ok(read) if read > 0 && answer.len() <= LONGEST_ANSWER => {}
                _ => return CheckResult::NETWORK,
            }
        }
        if self.target.check.reuse_connection {
            self.connection = Some(stream);
        }
        CheckResult::Passed { degraded: false }
    }

    /// Resolves when the host ends the connection between two checks, which is a failure of its own.
    pub(super) async fn lost(&mut self) {
        let Some(stream) = &mut self.connection else { return std::future::pending().await };
        let mut unasked = [0; 1024];
        while matches!(stream.read(&mut unasked).await, Ok(read) if read > 0) {}
        self.connection = None;
    }
}
