//! The error of a configuration that was refused: which field, and why.

use std::fmt;

/// A refused field: its path from the resource's root, and a reason an operator can act on.
///
/// The path is spelled as in YAML, for example
/// `static_resources.listeners[0].filter_chains[1].filters[0].typed_config.route_config`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Where: the field path; empty for the resource as a whole.
    pub path: String,
    /// What is wrong and what to check.
    pub reason: String,
}

impl Invalid {
    /// Refuses the field at `path` because of `reason`.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// The same error, seen from the parent that holds it under `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.path = match (prefix.is_empty(), self.path.is_empty() || self.path.starts_with('[')) {
            (true, _) => self.path,
            (false, true) => format!("{prefix}{}", self.path),
            (false, false) => format!("{prefix}.{}", self.path),
        };
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Invalid;

    #[test]
    fn paths_join_as_in_yaml() {
        let inner = Invalid::new("port_value", "missing");
        assert_eq!(inner.under("socket_address").path, "socket_address.port_value");
        assert_eq!(Invalid::new("[2].name", "empty").under("clusters").path, "clusters[2].name");
        assert_eq!(
            Invalid::new("", "empty").under("clusters[0]").to_string(),
            "clusters[0]: empty"
        );
    }
}
