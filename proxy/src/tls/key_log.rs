//! Session keys written to a file, so that captured traffic can be read while debugging (Envoy `key_log`).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use parking_lot::Mutex;
use rustls::KeyLog;

/// Appends to one file in the NSS key log format.
#[derive(Debug)]
pub(super) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    /// Opens the file at `path`, readable by its owner only.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file =
            file.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        tracing::warn!(path = %path.display(), "writing TLS session keys: all traffic can be read");
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        if let Err(error) = self.0.lock().write_all(line.as_bytes()) {
            tracing::debug!(%error, "the TLS key log cannot be written");
        }
    }
}
