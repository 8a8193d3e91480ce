//! The HTTP filters before the router: a request passes them in the order configured, and what is answered passes
//! them in the reverse order.
//!
//! A chain of the router alone costs a request one look at an empty list. A filter is one file here, and one
//! variant of [`FilterKind`]; what routes say to it is put together when their table is compiled
//! ([`RouteTable::said`](crate::route::RouteTable::said)).

mod cors;
mod forward_proxy;
mod header_mutation;
mod stateful_session;

use std::rc::Rc;

use http::{HeaderMap, HeaderValue};

use super::local_reply::LocalReply;
use super::stream::{Head, Stream};
use super::way::{Destination, Way};
use crate::config::http_filter::{FilterKind, FilterRule, HttpFilter};
use crate::route::{Found, Said};

/// What the filters made of a request, and have to remember until it is answered.
#[derive(Debug, Default)]
pub struct Filtered {
    /// The route whose words the filters heed, and the weighted cluster chosen.
    route: Option<(Found, Option<usize>)>,
    /// One for each filter of the chain; none for those that are disabled.
    memories: Vec<Option<Memory>>,
    /// What they ask of the router.
    pub wishes: Wishes,
}

/// What filters ask of the router.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The host to forward to in place of the request's own.
    pub authority: Option<Box<str>>,
    /// The endpoint to take, if it can be had: its address, and whether no other one will do.
    pub override_host: Option<(Box<str>, bool)>,
}

/// What one filter remembers of a request until it is answered.
#[derive(Debug)]
enum Memory {
    /// Nothing; or the request never got so far.
    Nothing,
    /// Of `stateful_session`, if the request may have a session: the endpoint that it has asked for.
    Session(Option<Box<str>>),
    /// Of `cors`: the origin whose pages may see the response.
    Cors(Option<HeaderValue>),
}

/// Why a request goes no further: a filter has answered it.
#[derive(Debug)]
pub enum Stopped {
    /// As the proxy answers for others, with the header changes of the route.
    Reply(Box<LocalReply>),
    /// By a response of the filter's own making.
    Response(Box<LocalReply>),
}

/// A request as one of its filters sees it.
struct Passing<'a> {
    stream: &'a Rc<Stream>,
    head: &'a Head,
    /// The cluster that it is forwarded to, if it is.
    cluster: Option<&'a str>,
    said: Said<'a>,
}

/// Takes the request of `stream` through the filters of its connection manager.
///
/// # Errors
/// The answer of the filter that lets it go no further.
pub async fn request(
    stream: &Rc<Stream>,
    head: &Head,
    way: Option<Way<'_>>,
) -> Result<(), Stopped> {
    let route = way.as_ref().and_then(|way| match way.to {
        // Like one without a route.
        Destination::Nowhere | Destination::Https => None,
        Destination::Answer(_) | Destination::Cluster(..) => Some((way.found, way.weighted())),
    });
    let cluster = way.as_ref().and_then(|way| match way.to {
        Destination::Cluster(_, _, target) => Some(target.cluster),
        _ => None,
    });
    let said = said(stream, route);
    let filters = &stream.served.config().filters;
    let memory = |filter: &HttpFilter| is_enabled(filter, said).then_some(Memory::Nothing);
    let memories = filters.iter().map(memory).collect();
    let mut filtered = Filtered { route, memories, wishes: Wishes::default() };
    let mut changed = None;
    let mut result = Ok(());
    for (filter, memory) in filters.iter().zip(&mut filtered.memories) {
        let Some(memory) = memory else { continue };
        let passing = Passing { stream, head: changed.as_ref().unwrap_or(head), cluster, said };
        match pass(filter, &passing, memory, &mut filtered.wishes).await {
            Ok(None) => {}
            Ok(head) => changed = head,
            Err(stopped) => {
                result = Err(stopped);
                break;
            }
        }
    }
    if let Some(head) = changed {
        stream.change_head(head);
    }
    stream.set_filtered(filtered);
    result
}

/// Takes a request through one filter, which may put another head in place of its own.
async fn pass(
    filter: &HttpFilter,
    request: &Passing<'_>,
    memory: &mut Memory,
    wishes: &mut Wishes,
) -> Result<Option<Head>, Stopped> {
    match &filter.kind {
        FilterKind::ForwardProxy(cache) => {
            let result = forward_proxy::request(cache, &filter.name, request, wishes).await;
            result.map_err(Stopped::Reply)?;
        }
        FilterKind::HeaderMutation(config) => {
            return Ok(header_mutation::request(config, &filter.name, request));
        }
        FilterKind::Cors => *memory = cors::request(&filter.name, request)?,
        FilterKind::StatefulSession(config) => {
            *memory = stateful_session::request(config, &filter.name, request, wishes);
        }
    }
    Ok(None)
}

/// Takes the headers of the answer to `stream`'s request through the filters that it has passed, and those that it
/// would have.
pub fn response(stream: &Stream, headers: &mut HeaderMap) {
    let Some(filtered) = stream.filtered() else { return };
    let said = said(stream, filtered.route);
    let filters = &stream.served.config().filters;
    for (filter, memory) in filters.iter().zip(&filtered.memories).rev() {
        let Some(memory) = memory else { continue };
        match &filter.kind {
            FilterKind::ForwardProxy(_) => {}
            FilterKind::HeaderMutation(config) => {
                header_mutation::response(config, &filter.name, said, stream, headers);
            }
            FilterKind::Cors => {
                if let Memory::Cors(origin) = memory {
                    cors::response(&filter.name, said, origin.as_ref(), headers);
                }
            }
            FilterKind::StatefulSession(config) => {
                if let Memory::Session(wanted) = memory {
                    let config = stateful_session::effective(config, &filter.name, said);
                    stateful_session::response(config, wanted.as_deref(), stream, headers);
                }
            }
        }
    }
}

fn said(stream: &Stream, route: Option<(Found, Option<usize>)>) -> Said<'_> {
    let said = route.zip(stream.table());
    said.map_or(Said::default(), |((found, weighted), table)| table.said(found, weighted))
}

/// Whether requests pass `filter`: the most specific word decides.
fn is_enabled(filter: &HttpFilter, said: Said<'_>) -> bool {
    said.to(&filter.name).next().map_or(!filter.disabled, |rule| *rule != FilterRule::Disabled)
}
