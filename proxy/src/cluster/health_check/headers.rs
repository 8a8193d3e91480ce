//! Headers that the configuration adds to a check.

use std::io::Write as _;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::Entry;

use super::connection::Target;
use crate::config::format::{Facts, Operator};
use crate::config::header::{AppendAction, HeaderToAdd};
use crate::net::hostname;

/// What is known of a check: there is no client, nor a route.
struct Check<'a> {
    target: &'a Target,
    protocol: &'static str,
    at: SystemTime,
}

/// See [`HealthCheck::has_value`](crate::config::health_check::HealthCheck::has_value) for what may be asked.
impl Facts for Check<'_> {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let text = match operator {
            Operator::StartTime(format) | Operator::EmitTime(format) => {
                format.write(self.at, out);
                return true;
            }
            // A host without a name is called by its address.
            Operator::UpstreamHostName if !self.target.hostname.is_empty() => &self.target.hostname,
            Operator::UpstreamHost | Operator::UpstreamHostName => {
                return write!(out, "{}", self.target.host_address).is_ok();
            }
            Operator::UniqueId => {
                let (high, low) = (fastrand::u64(..), fastrand::u64(..));
                return write!(out, "{high:016x}{low:016x}").is_ok();
            }
            Operator::Protocol => self.protocol,
            Operator::Hostname => hostname(),
            _ => return false,
        };
        out.extend_from_slice(text.as_bytes());
        true
    }
}

/// Adds `headers` to a check of `target` over `protocol` (as `%PROTOCOL%` prints it).
pub(super) fn add(
    headers: &[HeaderToAdd],
    target: &Target,
    protocol: &'static str,
    to: &mut HeaderMap,
) {
    let facts = Check { target, protocol, at: SystemTime::now() };
    for header in headers {
        let Some(value) = header.value(&facts) else { continue };
        match (to.entry(&header.name), header.action) {
            (Entry::Vacant(_), AppendAction::OverwriteIfExists)
            | (Entry::Occupied(_), AppendAction::AddIfAbsent) => {}
            (Entry::Vacant(entry), _) => drop(entry.insert(value)),
            (Entry::Occupied(mut entry), AppendAction::AppendIfExistsOrAdd) => entry.append(value),
            (Entry::Occupied(mut entry), _) => drop(entry.insert(value)),
        }
    }
}
