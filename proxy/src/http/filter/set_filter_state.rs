//! `set_filter_state`: what a request says becomes filter state, for logs and others to read.

use serde_json::Value;

use super::passage::Passage;
use crate::config::http_filter::{FilterRule, SetFilterState};

/// Sets what the filter is to set, and then what the route wants set.
pub(super) fn request(own: &[SetFilterState], filter: &str, request: &Passage<'_>) {
    let rule = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::SetFilterState(rule) => Some(&**rule),
        _ => None,
    });
    let stream = request.stream;
    for state in own.iter().chain(rule.unwrap_or_default()) {
        let mut value = Vec::new();
        let SetFilterState { key, format, omits_empty, skip_if_empty } = state;
        format.render(request, if *omits_empty { "" } else { "-" }, &mut value);
        if !(*skip_if_empty && value.is_empty()) {
            let value = String::from_utf8_lossy(&value).into_owned();
            stream.dynamic_mut().set_state(key.to_string(), Value::String(value));
        }
    }
}
