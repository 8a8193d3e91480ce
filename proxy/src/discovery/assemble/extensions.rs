//! HTTP filters whose configuration is discovered: what was found takes their place.

use std::sync::Arc;

use xds::yaml::Error as Located;

use super::state::State;
use crate::config::http::HttpConnectionManager;
use crate::config::http_filter::{FilterKind, HttpFilter};
use crate::config::listener::{FilterChain, TerminalFilter};
use crate::config::source::ResourceSource;
use crate::discovery::decode;
use crate::discovery::file::Origin;

/// `config` with what its discovered filters turned out to be, or else their defaults. What there is neither of answers
/// every request itself.
///
/// # Errors
/// What was found cannot stand where it is asked for.
pub(super) fn with_discovered(
    config: &Arc<FilterChain>,
    state: &State,
    origin: &Origin,
) -> Result<Arc<FilterChain>, Vec<Located>> {
    let is_discovered = |it: &HttpFilter| matches!(it.kind, FilterKind::Discovered(_));
    let Some(http) = config.http().filter(|http| http.filters.iter().any(is_discovered)) else {
        return Ok(Arc::clone(config));
    };
    let mut filters = Vec::with_capacity(http.filters.len());
    for filter in &http.filters {
        match found(filter, http, state) {
            Ok(filter) => filters.extend(filter),
            Err(errors) => {
                let origin = origin.below(&config.terminal_path()).below("http_filters");
                return Err(origin.locate_all(errors));
            }
        }
    }
    let http = HttpConnectionManager { filters, ..HttpConnectionManager::clone(http) };
    let terminal = TerminalFilter::Http(Arc::new(http));
    Ok(Arc::new(FilterChain { terminal, ..FilterChain::clone(config) }))
}

/// What a filter is; none if requests pass it as if it were not there.
fn found(
    filter: &HttpFilter,
    http: &HttpConnectionManager,
    state: &State,
) -> Result<Option<HttpFilter>, Vec<crate::config::Invalid>> {
    let FilterKind::Discovered(discovered) = &filter.kind else { return Ok(Some(filter.clone())) };
    let (name, source) = (Arc::clone(&filter.name), discovered.source.clone());
    let kind = match state.extension(&ResourceSource { name, source }) {
        Some((extension, _)) => {
            decode::discovered_filter(extension, &discovered.types, &http.stat_prefix)?
        }
        None => Some(discovered.default.clone().unwrap_or_else(|| filter.kind.clone())),
    };
    Ok(kind.map(|kind| HttpFilter { kind, ..filter.clone() }))
}
