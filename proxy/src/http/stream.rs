//! One request and its response as facts: what logs, metrics, header formats and retry decisions ask about.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Version};

use super::bad_body::BadBody;
use super::connection::{Connection, Served};
use super::dynamic::Dynamic;
use super::filter::Filtered;
use super::head::{self, Heads};
use super::router::redirect::Trail;
use super::trace::Traced;
use crate::config::Name;
use crate::config::access_log::LoggedHeaders;
use crate::config::address::HostAddress;
use crate::config::route::Route;
use crate::route::{Found, RouteTable};
use crate::telemetry::response_flags::ResponseFlags;
use crate::telemetry::trace::TraceContext;
use crate::worker::Moment;

pub use super::head::Head;

/// Facts about the newest upstream attempt.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// The cluster chosen.
    pub cluster: Option<Name>,
    /// The endpoint chosen.
    pub host: Option<HostAddress>,
    /// Its configured or resolved name.
    pub hostname: Option<Name>,
    /// The peer's side of the connection, which may be another address of the endpoint.
    pub remote: Option<SocketAddr>,
    /// Our side of the connection.
    pub local: Option<SocketAddr>,
    /// Version spoken.
    pub version: Option<Version>,
    /// Why the transport failed.
    pub failure: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// What TLS to it established.
    pub tls: Option<Rc<crate::tls::peer::PeerInfo>>,
}

impl Upstream {
    /// The address connected to, or meant to be.
    pub fn remote(&self) -> Option<HostAddress> {
        self.remote.map(HostAddress::Ip).or_else(|| self.host.clone())
    }
}

/// The moments of a stream that durations are computed from.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The last byte of the request came from the client.
    pub request_end: Cell<Option<Instant>>,
    /// The request's headers went upstream.
    pub upstream_begin: Cell<Option<Instant>>,
    /// The response's headers came.
    pub response_begin: Cell<Option<Instant>>,
    /// The proxy answered itself.
    pub own_answer: Cell<Option<Instant>>,
    /// Anything at all moved.
    pub activity: Cell<Option<Instant>>,
}

impl Timeline {
    /// When the request's last byte went upstream: bodies are read from the client only as they are sent.
    pub fn upstream_request_end(&self) -> Option<Instant> {
        Some(self.request_end.get()?.max(self.upstream_begin.get()?))
    }

    /// When the answer began to go to the client: that of the upstream goes on as it comes.
    pub fn answer_begin(&self) -> Option<Instant> {
        self.own_answer.get().or(self.response_begin.get())
    }
}

/// Everything known about one request while it is served.
#[derive(Debug)]
pub struct Stream {
    /// The connection it came on.
    pub connection: Rc<Connection>,
    /// The configuration it is served by.
    pub served: Rc<Served>,
    /// When it came.
    pub start: Moment,
    /// Unique on its worker.
    pub id: u64,
    /// When what happened.
    pub timeline: Timeline,
    /// The newest attempt.
    pub upstream: RefCell<Upstream>,
    /// The client as forwarded headers or the connection say.
    pub client: Cell<SocketAddr>,
    /// Whether the client is inside the trusted network.
    pub internal: Cell<bool>,
    heads: Heads,
    outgoing: OnceCell<Box<Heads>>,
    route: Cell<Option<Found>>,
    status: Cell<Option<StatusCode>>,
    flags: Cell<ResponseFlags>,
    details: RefCell<std::borrow::Cow<'static, str>>,
    received: Cell<u64>,
    sent: Cell<u64>,
    response_headers: RefCell<Vec<(HeaderName, HeaderValue)>>,
    response_size: Cell<u64>,
    trailers: RefCell<Option<HeaderMap>>,
    ended: Cell<bool>,
    extended_connect: Cell<bool>,
    health_check: Cell<bool>,
    bad_body: Cell<Option<BadBody>>,
    arrival: RefCell<Option<Waker>>,
    traced: Cell<Option<Traced>>,
    operation: OnceCell<HeaderValue>,
    filtered: OnceCell<Box<Filtered>>,
    trail: OnceCell<Box<Trail>>,
    dynamic: RefCell<Dynamic>,
    random: u64,
}

impl Stream {
    /// The facts of a request that begins now.
    pub fn begin(connection: Rc<Connection>, served: Rc<Served>) -> Rc<Self> {
        let worker = &connection.worker;
        let (id, random) = (worker.next_id(), worker.random());
        let client = Cell::new(connection.downstream.remote);
        Rc::new(Self {
            start: Moment::now(),
            id,
            timeline: Timeline::default(),
            upstream: RefCell::default(),
            client,
            internal: Cell::new(false),
            heads: Heads::default(),
            outgoing: OnceCell::new(),
            route: Cell::new(None),
            status: Cell::new(None),
            flags: Cell::new(ResponseFlags::default()),
            details: RefCell::new("".into()),
            received: Cell::new(0),
            sent: Cell::new(0),
            response_headers: RefCell::default(),
            response_size: Cell::new(0),
            trailers: RefCell::default(),
            ended: Cell::new(false),
            extended_connect: Cell::new(false),
            health_check: Cell::new(false),
            bad_body: Cell::new(None),
            arrival: RefCell::new(None),
            traced: Cell::new(None),
            operation: OnceCell::new(),
            filtered: OnceCell::new(),
            trail: OnceCell::new(),
            dynamic: RefCell::default(),
            random,
            connection,
            served,
        })
    }

    /// The facts of the request that a redirect of this one's upstream leads to, by the same client.
    pub fn redirected(&self, head: Head, trail: Trail) -> Rc<Self> {
        let next = Self::begin(Rc::clone(&self.connection), Rc::clone(&self.served));
        next.client.set(self.client.get());
        next.internal.set(self.internal.get());
        next.traced.set(self.traced.get());
        next.received.set(self.received.get());
        next.request_arrived(next.start.instant);
        let _ = next.trail.set(Box::new(trail));
        next.set_head(head);
        next
    }

    /// The redirects that were followed to get to this request; none if it is the client's own.
    pub fn trail(&self) -> Option<&Trail> {
        self.trail.get().map(AsRef::as_ref)
    }

    /// The request's head, once it has been read and normalised; as filters have left it, once they have run.
    pub fn head(&self) -> Option<&Head> {
        self.heads.newest()
    }

    /// The request's head before filters: the client's, which says what kind of answer it understands.
    pub fn client_head(&self) -> Option<&Head> {
        self.heads.first()
    }

    /// Fixes the request's head, or puts another one in its place.
    pub fn set_head(&self, head: Head) -> &Head {
        self.heads.put(head)
    }

    /// The request's head as it goes upstream, or would go as far as is known; what logs tell.
    pub fn outgoing_head(&self) -> Option<&Head> {
        self.outgoing.get().and_then(|heads| heads.newest()).or_else(|| self.head())
    }

    /// Notes the request's head as it goes upstream.
    pub fn set_outgoing_head(&self, head: Head) -> &Head {
        self.outgoing.get_or_init(Box::default).put(head)
    }

    /// What filters have said of the request, for others to read.
    pub fn dynamic(&self) -> std::cell::Ref<'_, Dynamic> {
        self.dynamic.borrow()
    }

    /// The same, to say more.
    pub fn dynamic_mut(&self) -> std::cell::RefMut<'_, Dynamic> {
        self.dynamic.borrow_mut()
    }

    /// Its span, if there is one: recorded or not.
    pub fn trace(&self) -> Option<TraceContext> {
        Some(self.traced.get()?.span?.0)
    }

    /// Its part in a trace; none if nothing is traced here.
    pub fn traced(&self) -> Option<Traced> {
        self.traced.get()
    }

    /// Notes its part in a trace.
    pub fn set_traced(&self, traced: Traced) {
        self.traced.set(Some(traced));
    }

    /// What the upstream wants its span to be called.
    pub fn operation(&self) -> Option<HeaderValue> {
        self.operation.get().cloned()
    }

    /// Notes what the upstream wants its span to be called.
    pub fn set_operation(&self, operation: HeaderValue) {
        let _ = self.operation.set(operation);
    }

    /// What filters made of the request; none before they have run, or if there are none.
    pub fn filtered(&self) -> Option<&Filtered> {
        self.filtered.get().map(AsRef::as_ref)
    }

    /// Notes what filters made of the request; the first call decides.
    pub fn set_filtered(&self, filtered: Filtered) {
        let _ = self.filtered.set(Box::new(filtered));
    }

    /// The random number all of this request's choices are made with.
    pub fn random(&self) -> u64 {
        self.random
    }

    /// The route table it is served by.
    pub fn table(&self) -> Option<&RouteTable> {
        self.served.http.routes.as_deref()
    }

    /// The route taken.
    pub fn route(&self) -> Option<Found> {
        self.route.get()
    }

    /// Notes the route taken.
    pub fn set_route(&self, found: Option<Found>) {
        self.route.set(found);
    }

    /// The route taken, as configured.
    pub fn taken_route(&self) -> Option<&Route> {
        self.table()?.route(self.route()?).map(AsRef::as_ref)
    }

    /// The status sent to the client.
    pub fn status(&self) -> Option<StatusCode> {
        self.status.get()
    }

    /// Notes the status sent to the client.
    pub fn set_status(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    /// What went wrong, as Envoy's flags.
    pub fn flags(&self) -> ResponseFlags {
        self.flags.get()
    }

    /// Adds a flag.
    pub fn flag(&self, flags: ResponseFlags) {
        let mut all = self.flags.get();
        all.insert(flags);
        self.flags.set(all);
    }

    /// Notes where the response came from (`%RESPONSE_CODE_DETAILS%`).
    pub fn set_details(&self, details: impl Into<std::borrow::Cow<'static, str>>) {
        *self.details.borrow_mut() = details.into();
    }

    /// Reads the details.
    pub fn with_details<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        read(&self.details.borrow())
    }

    /// Body bytes came from the client.
    pub fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    /// Body bytes from the client so far.
    pub fn bytes_received(&self) -> u64 {
        self.received.get()
    }

    /// Body bytes went to the client.
    pub fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// Body bytes to the client so far.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether the client asked for the upgrade by an extended CONNECT (RFC 8441).
    pub fn is_extended_connect(&self) -> bool {
        self.extended_connect.get()
    }

    /// Notes whether the client asked for an upgrade by an extended CONNECT.
    pub fn set_extended_connect(&self, extended: bool) {
        self.extended_connect.set(extended);
    }

    /// Whether it is a health check of this proxy.
    pub fn is_health_check(&self) -> bool {
        self.health_check.get()
    }

    /// Notes that it is a health check of this proxy.
    pub fn set_health_check(&self) {
        self.health_check.set(true);
    }

    /// What is wrong with the request's body, if a filter could make nothing of it.
    pub fn bad_body(&self) -> Option<BadBody> {
        self.bad_body.get()
    }

    /// Notes what is wrong with the request's body.
    pub fn set_bad_body(&self, body: BadBody) {
        self.bad_body.set(Some(body));
    }

    /// Whether the proxy's part is over: the response is sent whole, or was cut short for a known reason.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Notes that the proxy's part is over.
    pub fn set_ended(&self) {
        self.ended.set(true);
    }

    /// Notes when the last byte of the request came from the client; the first call decides.
    pub fn request_arrived(&self, at: Instant) {
        if self.timeline.request_end.get().is_none() {
            self.timeline.request_end.set(Some(at));
            if let Some(waker) = self.arrival.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Wakes the task of `cx` when the request has arrived whole: some timeouts begin only then.
    pub fn wake_on_arrival(&self, cx: &Context<'_>) {
        if self.timeline.request_end.get().is_none() {
            *self.arrival.borrow_mut() = Some(cx.waker().clone());
        }
    }

    /// Something moved: the stream is not idle.
    pub fn touch(&self) {
        self.timeline.activity.set(Some(Instant::now()));
    }

    /// Since when nothing has moved.
    pub fn quiet_since(&self) -> Instant {
        self.timeline.activity.get().unwrap_or(self.start.instant)
    }

    /// How long the request has waited since it arrived whole; nothing while it is still arriving.
    pub fn waited(&self) -> Duration {
        self.timeline.request_end.get().map_or(Duration::ZERO, |end| end.elapsed())
    }

    /// Age of the stream.
    pub fn age(&self) -> Duration {
        self.start.instant.elapsed()
    }

    /// Keeps those response headers that the access logs ask for, and their size.
    pub fn keep_response_headers(&self, wanted: &LoggedHeaders, headers: &HeaderMap) {
        if wanted.size {
            self.response_size.set((":status".len() + "200".len()) as u64 + head::size(headers));
        }
        self.keep_headers(&wanted.names, headers);
    }

    /// Keeps these response headers.
    pub fn keep_headers(&self, names: &[HeaderName], headers: &HeaderMap) {
        let mut kept = self.response_headers.borrow_mut();
        for name in names {
            kept.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
    }

    /// Bytes of the response's headers, if they are logged; 0 before there are any.
    pub fn response_size(&self) -> u64 {
        self.response_size.get()
    }

    /// Bytes of the response's trailers.
    pub fn trailers_size(&self) -> u64 {
        self.trailers.borrow().as_ref().map_or(0, head::size)
    }

    /// Reads a kept response header.
    pub fn with_response_header<T>(
        &self,
        name: &HeaderName,
        read: impl FnOnce(&HeaderValue) -> T,
    ) -> Option<T> {
        let kept = self.response_headers.borrow();
        kept.iter().find(|(known, _)| known == name).map(|(_, value)| read(value))
    }

    /// All values of a kept response header, joined by `,`.
    pub fn response_header_values(&self, name: &HeaderName) -> Option<Vec<u8>> {
        let kept = self.response_headers.borrow();
        let values = kept.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| value.as_bytes().to_vec()).reduce(|mut all, value| {
            all.push(b',');
            all.extend_from_slice(&value);
            all
        })
    }

    /// Keeps the response's trailers.
    pub fn keep_trailers(&self, trailers: &HeaderMap) {
        *self.trailers.borrow_mut() = Some(trailers.clone());
    }

    /// Reads the response's trailers, if there are any.
    pub fn with_trailers(&self, read: impl FnOnce(&HeaderMap)) {
        if let Some(trailers) = &*self.trailers.borrow() {
            read(trailers);
        }
    }

    /// Reads a trailer of the response.
    pub fn with_trailer<T>(
        &self,
        name: &HeaderName,
        read: impl FnOnce(&HeaderValue) -> T,
    ) -> Option<T> {
        self.trailers.borrow().as_ref()?.get(name).map(read)
    }
}
