//! A request and its answer as filters see them.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::{Filtered, Memory, Wishes};
use crate::config::format::{Facts, Operator};
use crate::config::metadata::{Metadata, MetadataOf};
use crate::config::route::Route;
use crate::http::names;
use crate::http::request_body::ClientBody;
use crate::http::stream::{Head, Stream};
use crate::http::way::{Destination, Way};
use crate::net::body::BoxBody;
use crate::route::{Found, Said};

/// The route that filters heed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    /// Where it is in the table.
    pub(super) found: Found,
    /// The weighted cluster chosen.
    pub(super) weighted: Option<usize>,
}

impl Chosen {
    /// What `stream`'s table says to filters on this route; nothing if there is none.
    pub(super) fn said<'a>(chosen: Option<&Self>, stream: &'a Stream) -> Said<'a> {
        let said = chosen.zip(stream.table());
        said.map_or(Said::default(), |(it, table)| table.said(it.found, it.weighted))
    }
}

/// A request on its way through the filters.
pub(super) struct Passage<'a> {
    /// Its facts.
    pub(super) stream: &'a Rc<Stream>,
    /// Its body, as far as it is not read yet.
    pub(super) body: &'a mut ClientBody,
    /// What is asked of the router.
    pub(super) wishes: Wishes,
    base: &'a Head,
    changed: Option<Head>,
    chosen: Option<Chosen>,
    cluster: Option<Cow<'a, str>>,
    found_again: bool,
}

impl<'a> Passage<'a> {
    /// The request of `stream` with this head, which would go this way.
    pub(super) fn new(
        stream: &'a Rc<Stream>,
        base: &'a Head,
        body: &'a mut ClientBody,
        way: Option<Way<'a>>,
    ) -> Self {
        let (chosen, cluster) = choice(way);
        let cluster = cluster.map(Cow::Borrowed);
        let wishes = Wishes::default();
        Self { stream, body, wishes, base, changed: None, chosen, cluster, found_again: false }
    }

    /// Its head, as the filters before have left it.
    pub(super) fn head(&self) -> &Head {
        self.changed.as_ref().unwrap_or(self.base)
    }

    /// Its head, to be changed. The first change copies it.
    pub(super) fn head_mut(&mut self) -> &mut Head {
        self.changed.get_or_insert_with(|| self.base.clone())
    }

    /// Its route; none if there is none, or the client has to come again over https.
    pub(super) fn route(&self) -> Option<&'a Arc<Route>> {
        self.stream.table()?.route(self.chosen?.found)
    }

    /// The cluster that it is forwarded to, if it is.
    pub(super) fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// What is said to filters by its route.
    pub(super) fn said(&self) -> Said<'a> {
        Chosen::said(self.chosen.as_ref(), self.stream)
    }

    /// Finds its route anew, by what its head and its dynamic metadata are by now (Envoy `clear_route_cache`).
    pub(super) fn find_route_again(&mut self) {
        let head = self.head();
        let way = Way::find(self.stream, head, forwarded_proto(head));
        self.stream.set_route(way.map(|way| way.found));
        let (chosen, cluster) = choice(way);
        let cluster = cluster.map(|cluster| Cow::Owned(cluster.to_owned()));
        (self.chosen, self.cluster, self.found_again) = (chosen, cluster, true);
    }

    /// What has become of it, where its filters remember this, and its head if they have changed it.
    pub(super) fn finish(self, memories: Vec<Option<Memory>>) -> (Filtered, Option<Head>) {
        let Self { wishes, chosen: route, found_again, changed, .. } = self;
        (Filtered { route, memories, wishes, found_again }, changed)
    }
}

/// What expressions and format strings of filters read, as the filters before have left it.
impl Facts for Passage<'_> {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        self.stream.write_with(Some(self.head()), operator, out)
    }

    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        self.stream.with_metadata(of, read);
    }

    fn with_filter_state(&self, key: &str, read: &mut dyn FnMut(&serde_json::Value)) {
        self.stream.with_filter_state(key, read);
    }
}

fn choice(way: Option<Way<'_>>) -> (Option<Chosen>, Option<&str>) {
    let Some(way) = way else { return (None, None) };
    match way.to {
        // Like one without a route.
        Destination::Nowhere | Destination::Https => (None, None),
        Destination::Answer(_) => (Some(Chosen { found: way.found, weighted: None }), None),
        Destination::Cluster(_, _, target) => {
            let chosen = Chosen { found: way.found, weighted: target.weighted };
            (Some(chosen), Some(target.cluster))
        }
    }
}

/// How the client connected, as `x-forwarded-proto` says by now.
pub(in crate::http) fn forwarded_proto(head: &Head) -> &str {
    let value = head.headers.get(names::X_FORWARDED_PROTO);
    value.and_then(|value| value.to_str().ok()).unwrap_or(head.scheme)
}

/// The head of an answer on its way back through the filters.
pub(in crate::http) struct Answering<'a> {
    /// Its status.
    pub(in crate::http) status: StatusCode,
    /// Its headers.
    pub(in crate::http) headers: &'a mut HeaderMap,
    /// Whether it has no body.
    pub(in crate::http) is_bodiless: bool,
    /// What filters make of its body.
    pub(in crate::http) wraps: Wraps,
}

/// What is made of a body, in order; mostly nothing.
#[derive(Default)]
pub struct Wraps(Vec<Box<dyn FnOnce(BoxBody) -> BoxBody>>);

impl Wraps {
    /// Whether the body stays as it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets `wrap` make something of the body.
    pub fn push(&mut self, wrap: impl FnOnce(BoxBody) -> BoxBody + 'static) {
        self.0.push(Box::new(wrap));
    }

    /// The body as it goes to the client.
    pub fn wrap(self, body: BoxBody) -> BoxBody {
        self.0.into_iter().fold(body, |body, wrap| wrap(body))
    }
}
