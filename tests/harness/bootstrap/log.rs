//! Envoy's `AccessLog` of files.

use std::path::Path;

use serde_json::{Value, json};

use super::typed;

/// An access log as this `FileAccessLog` says.
pub(super) fn file_log(config: Value) -> Value {
    let config = typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", config);
    json!({"name": "envoy.access_loggers.file", "typed_config": config})
}

/// A `FileAccessLog` to `file` with this text format; a line break is added.
pub(super) fn text_format(file: &Path, format: &str) -> Value {
    let line = format!("{format}\n");
    json!({"path": file, "log_format": {"text_format_source": {"inline_string": line}}})
}
