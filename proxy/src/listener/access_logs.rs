//! Whether a new snapshot's access logs can be written, found out before it is published.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::manager::CannotListen;
use crate::config::Invalid;
use crate::config::access_log::{AccessLog, LogSink};
use crate::snapshot::{Listener, Snapshot};
use crate::telemetry::access_log::AccessLogger;

/// Sinks that could be opened once. What becomes of them later, the writer reports.
#[derive(Debug, Default)]
pub(super) struct Sinks(HashSet<LogSink>);

/// Tries every access log of `snapshot`; a log file that does not exist yet is created.
///
/// # Errors
/// The first log that cannot be written.
pub fn check(snapshot: &Snapshot) -> Result<(), CannotListen> {
    Sinks::default().check(snapshot)
}

impl Sinks {
    /// Tries every sink of `snapshot` that was not tried before.
    ///
    /// # Errors
    /// The first log that cannot be written.
    pub(super) fn check(&mut self, snapshot: &Snapshot) -> Result<(), CannotListen> {
        let mut listeners: Vec<_> = snapshot.listeners.values().collect();
        listeners.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        listeners.into_iter().try_for_each(|listener| {
            self.check_listener(listener).map_err(|error| {
                let listener = Arc::clone(&listener.config.name);
                CannotListen { listener, error }
            })
        })
    }

    fn check_listener(&mut self, listener: &Listener) -> Result<(), Invalid> {
        let unopened = |path: String, error: io::Error| {
            Invalid::new(path, format!("cannot be opened for appending: {error}"))
        };
        if let Err((index, error)) = self.check_logs(&listener.config.access_logs) {
            return Err(unopened(format!("access_log[{index}].typed_config.path"), error));
        }
        let chains = listener.chains.iter().enumerate();
        let chains = chains.map(|(index, chain)| (format!("filter_chains[{index}]"), chain));
        let default = listener.default_chain.iter();
        let default = default.map(|chain| ("default_filter_chain".to_owned(), chain));
        for (path, chain) in chains.chain(default) {
            if let Err((index, error)) = self.check_logs(chain.config.access_logs()) {
                let terminal = chain.config.terminal_path();
                let path = format!("{path}.{terminal}.access_log[{index}].typed_config.path");
                return Err(unopened(path, error));
            }
        }
        Ok(())
    }

    /// Fails with the place of the first log that cannot be opened, and why.
    fn check_logs(&mut self, logs: &[Arc<AccessLog>]) -> Result<(), (usize, io::Error)> {
        for (index, log) in logs.iter().enumerate() {
            let Some(sink) = log.sink() else { continue };
            if !self.0.contains(sink) {
                AccessLogger::check(sink).map_err(|error| (index, error))?;
                self.0.insert(sink.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::access_log::{LogFormat, Logger};

    #[test]
    fn a_log_that_cannot_be_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let log = |path: &str| {
            let format = LogFormat::Text { line: Default::default(), omit_empty: false };
            let sink = LogSink::File(directory.path().join(path));
            Arc::new(AccessLog { logger: Logger::Lines { sink, format }, filter: None })
        };
        let logs = [log("good.log"), log("missing/bad.log")];
        let mut sinks = Sinks::default();
        let (index, error) = sinks.check_logs(&logs).unwrap_err();
        assert_eq!((index, error.kind()), (1, io::ErrorKind::NotFound));
        assert!(directory.path().join("good.log").exists());
        std::fs::create_dir(directory.path().join("missing")).unwrap();
        sinks.check_logs(&logs).unwrap();
    }
}
