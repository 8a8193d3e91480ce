//! The streams to management servers: opened when something is wanted of one, opened anew with growing pauses when they
//! end, and with the next server of the list where one does not answer.
//!
//! What is said on them is decided by the client half of [`xds`]; what becomes of it, by whoever waits for events here.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use xds::client::{Client, Lapse, Options, Rejection, Standing, Update};
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

use super::assemble::Needed;
use super::file::Kind;
use super::identity::identity;
use super::served::ServedKey;
use crate::call::{Caller, grpc};
use crate::config::bootstrap;
use crate::config::source::{GrpcSource, Server};
use crate::config::{HashMap, Name};
use crate::net::grpc::Status;
use crate::telemetry::metrics::{ControlPlaneStats, Metrics};

/// Longest response that is taken, in bytes: that of a mesh with tens of thousands of services.
const LONGEST_RESPONSE: usize = 256 << 20;
/// The longest first pause before a stream is opened anew, as Envoy's.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, as Envoy's.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Responses that wait to be looked at.
const WAITING: usize = 16;

/// All streams.
pub(super) struct Streams {
    caller: Rc<Caller>,
    node: Node,
    all: Vec<Stream>,
    /// Streams opened so far.
    opened: u64,
    said: mpsc::Receiver<Said>,
    sayer: mpsc::Sender<Said>,
    metrics: Arc<Metrics>,
    stats: Option<Arc<ControlPlaneStats>>,
    /// What servers have yet to be told of a former run.
    resumed: Resumed,
}

/// What a former run has left of each kind and server.
pub(super) type Resumed = HashMap<ServedKey, Held>;

/// Resources that are held from the beginning.
#[derive(Debug)]
pub(super) struct Held {
    /// The version of exactly these; empty if there is none.
    pub(super) version: String,
    /// Each with its name and version.
    pub(super) resources: Vec<(String, String, Any)>,
}

/// Something that came on the stream with this number.
struct Said {
    stream: u64,
    what: Result<Option<Response>, Status>,
}

/// What is wanted of one server, and the stream to it while there is one.
struct Stream {
    server: Server,
    /// The only kind of resources on it; none if it carries all kinds.
    only: Option<ResourceType>,
    source: Arc<GrpcSource>,
    client: Client,
    wanted: BTreeMap<ResourceType, BTreeSet<Name>>,
    open: Option<Open>,
    /// Which of the source's services is asked.
    service: usize,
    /// How often in a row no response came.
    failures: u32,
    retry_at: Instant,
}

/// A stream, ended when this is dropped.
struct Open {
    number: u64,
    requests: mpsc::UnboundedSender<Request>,
    task: AbortHandle,
    answered: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What whoever waits has to look at.
pub(super) enum Event {
    /// A response came, to be given to [`Streams::settle`].
    Update(Server, Update),
    /// Time has taken something away.
    Lapsed(Server, Vec<Lapse>),
}

impl Streams {
    /// No streams yet; they begin with what is `resumed`.
    pub(super) fn new(
        caller: Rc<Caller>,
        node: &bootstrap::Node,
        metrics: &Arc<Metrics>,
        resumed: Resumed,
    ) -> Self {
        let (sayer, said) = mpsc::channel(WAITING);
        let (node, metrics) = (identity(node), Arc::clone(metrics));
        let (all, stats) = (Vec::new(), None);
        Self { caller, node, all, opened: 0, said, sayer, metrics, stats, resumed }
    }

    /// Wants exactly what is `needed` from now on; `ads` is the server of all kinds.
    pub(super) fn follow(&mut self, ads: Option<&Arc<GrpcSource>>, needed: &Needed, now: Instant) {
        let mut groups: HashMap<(&Server, Option<ResourceType>), Group<'_>> = HashMap::default();
        for (key, names) in needed {
            let kind = key.kind.resource_type();
            let only = (key.server != Server::Ads).then_some(kind);
            groups.entry((&key.server, only)).or_default().insert(kind, names);
        }
        let source_of = |server: &Server| match server {
            Server::Ads => ads.cloned(),
            Server::Grpc(source) => Some(Arc::clone(source)),
        };
        self.all.retain(|it| {
            groups.contains_key(&(&it.server, it.only))
                && source_of(&it.server).is_some_and(|source| source == it.source)
        });
        for ((server, only), group) in groups {
            let known = self.all.iter_mut().find(|it| it.server == *server && it.only == only);
            let stream = match (known, source_of(server)) {
                (Some(stream), _) => stream,
                (None, Some(source)) => {
                    self.all.push(Stream::new(server.clone(), only, source, &self.node, now));
                    match self.all.last_mut() {
                        Some(stream) => stream,
                        None => continue,
                    }
                }
                // Linking has refused what asks for it.
                (None, None) => continue,
            };
            stream.want(&group, now);
            for kind in group.keys() {
                let Some(of_ours) = Kind::of(*kind) else { continue };
                let key = ServedKey { kind: of_ours, server: server.clone() };
                if let Some(Held { version, resources }) = self.resumed.remove(&key) {
                    let held =
                        resources.iter().map(|(name, version, body)| (&**name, &**version, body));
                    stream.client.resume(*kind, &version, held);
                }
            }
        }
        self.stats = ads.map(|_| self.metrics.control_plane());
        self.show();
    }

    /// Speaks and listens until something is to be looked at. May be dropped while waiting.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            let now = Instant::now();
            for stream in &mut self.all {
                if stream.open.is_none() && stream.retry_at <= now {
                    self.opened += 1;
                    stream.open(self.opened, &self.caller, &self.sayer);
                }
                stream.speak(now);
                let lapsed = stream.client.lapsed(now);
                if !lapsed.is_empty() {
                    return Event::Lapsed(stream.server.clone(), lapsed);
                }
            }
            self.show();
            let wake = self.all.iter().filter_map(Stream::deadline).min();
            let asleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                said = self.said.recv() => {
                    if let Some(event) = said.and_then(|said| self.hear(said)) {
                        return event;
                    }
                }
                () = asleep => {}
            }
        }
    }

    fn hear(&mut self, Said { stream: number, what }: Said) -> Option<Event> {
        let is_it = |it: &&mut Stream| it.open.as_ref().is_some_and(|open| open.number == number);
        let stream = self.all.iter_mut().find(is_it)?;
        match what {
            Ok(Some(response)) => {
                stream.failures = 0;
                if let Some(open) = &mut stream.open {
                    open.answered = true;
                }
                let kind = response.type_url().to_owned();
                let update = stream.client.receive(response);
                if update.is_none() {
                    tracing::warn!(kind, "a management server sent what nobody asked for");
                }
                Some(Event::Update(stream.server.clone(), update?))
            }
            Ok(None) => {
                stream.close("it was ended");
                None
            }
            Err(status) => {
                stream.close(&status.to_string());
                None
            }
        }
    }

    /// Answers `update`, but for what is `rejected` of it. How things stand with its kind then.
    pub(super) fn settle(
        &mut self,
        server: &Server,
        update: Update,
        rejected: Vec<Rejection>,
    ) -> Option<Standing<'_>> {
        let kind = update.kind;
        let is_it = |it: &&mut Stream| it.server == *server && it.only.is_none_or(|it| it == kind);
        let stream = self.all.iter_mut().find(is_it)?;
        stream.client.settle(update, rejected, Instant::now());
        stream.client.standing(kind)
    }

    fn show(&self) {
        let ads = self.all.iter().find(|stream| stream.server == Server::Ads);
        let is_connected = ads.is_some_and(|stream| stream.open.is_some());
        if let Some(stats) = &self.stats {
            stats.connected_state.set(i64::from(is_connected));
        }
    }
}

/// What is wanted of one stream.
type Group<'a> = BTreeMap<ResourceType, &'a BTreeMap<Name, Duration>>;

impl Stream {
    fn new(
        server: Server,
        only: Option<ResourceType>,
        source: Arc<GrpcSource>,
        node: &Node,
        now: Instant,
    ) -> Self {
        let client = Client::new(Options {
            variant: variant(&source),
            node: node.clone(),
            node_on_first_message_only: source.node_on_first_message_only,
            fetch_timeout: Duration::ZERO,
        });
        Self {
            server,
            only,
            source,
            client,
            wanted: BTreeMap::new(),
            open: None,
            service: 0,
            failures: 0,
            retry_at: now,
        }
    }

    /// Wants exactly these resources.
    fn want(&mut self, group: &Group<'_>, now: Instant) {
        for (kind, wanted) in &mut self.wanted {
            let names = group.get(kind);
            let is_wanted = |name: &Name| names.is_some_and(|names| names.contains_key(name));
            let left: Vec<Name> = wanted.iter().filter(|name| !is_wanted(name)).cloned().collect();
            if !left.is_empty() {
                wanted.retain(is_wanted);
                self.client.unsubscribe(*kind, left);
            }
        }
        for (kind, names) in group {
            let wanted = self.wanted.entry(*kind).or_default();
            for (name, timeout) in *names {
                if wanted.insert(Arc::clone(name)) {
                    self.client.subscribe_within(*kind, [name], *timeout, now);
                }
            }
        }
    }

    fn open(&mut self, number: u64, caller: &Rc<Caller>, sayer: &mpsc::Sender<Said>) {
        let Some(service) = self.source.services.get(self.service) else { return };
        let variant = variant(&self.source);
        let method = match self.only {
            Some(kind) => kind.method(variant),
            None => variant.aggregated_method(),
        };
        tracing::info!(cluster = %service.cluster, method, "asking a management server");
        let (requests, outbox) = mpsc::unbounded_channel();
        let (caller, service, sayer) = (Rc::clone(caller), service.clone(), sayer.clone());
        let task = match variant {
            Variant::StateOfTheWorld => tokio::task::spawn_local(async move {
                let open = grpc::stream::<DiscoveryRequest, DiscoveryResponse>;
                let halves = open(caller, &service, method, LONGEST_RESPONSE);
                let message = |request| match request {
                    Request::Sotw(message) => Some(message),
                    Request::Delta(_) => None,
                };
                converse(number, halves, outbox, sayer, message, Response::Sotw).await;
            }),
            Variant::Incremental => tokio::task::spawn_local(async move {
                let open = grpc::stream::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
                let halves = open(caller, &service, method, LONGEST_RESPONSE);
                let message = |request| match request {
                    Request::Delta(message) => Some(message),
                    Request::Sotw(_) => None,
                };
                converse(number, halves, outbox, sayer, message, Response::Delta).await;
            }),
        };
        self.client.connected();
        let task = task.abort_handle();
        self.open = Some(Open { number, requests, task, answered: false });
    }

    /// Says whatever there is to say.
    fn speak(&mut self, now: Instant) {
        let Some(open) = &self.open else { return };
        while let Some(request) = self.client.request(now) {
            // If the stream is over, we are about to hear of it.
            let _ = open.requests.send(request);
        }
    }

    /// The stream is over; another is opened after a pause, to the next server unless this one answered.
    fn close(&mut self, why: &str) {
        let answered = self.open.take().is_some_and(|open| open.answered);
        self.client.disconnected();
        let longest = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        let pause = longest.min(LONGEST_PAUSE).mul_f64(fastrand::f64());
        let cluster = self.source.services.get(self.service).map(|it| Arc::clone(&it.cluster));
        let cluster = cluster.as_deref().unwrap_or_default();
        // What goes on for long is told of now and then.
        if self.failures.is_power_of_two() || self.failures == 0 {
            tracing::warn!(
                cluster,
                why,
                failures = self.failures,
                "the stream to a management server is over; the configuration stays as it is"
            );
        }
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Instant::now() + pause;
        self.service = if answered {
            0
        } else {
            (self.service + 1).checked_rem(self.source.services.len()).unwrap_or(0)
        };
    }

    /// When there may be something to do without anything being heard.
    fn deadline(&self) -> Option<Instant> {
        let retry = self.open.is_none().then_some(self.retry_at);
        retry.into_iter().chain(self.client.deadline()).min()
    }
}

fn variant(source: &GrpcSource) -> Variant {
    if source.delta { Variant::Incremental } else { Variant::StateOfTheWorld }
}

/// Passes on what is said on a stream, both ways, until it is over. Neither way waits for the other.
async fn converse<Q: Message, A>(
    stream: u64,
    (outgoing, mut incoming): (grpc::Outgoing<Q>, grpc::Incoming<A>),
    mut requests: mpsc::UnboundedReceiver<Request>,
    sayer: mpsc::Sender<Said>,
    message: impl Fn(Request) -> Option<Q>,
    response: impl Fn(A) -> Response,
) {
    let speaking = async {
        while let Some(request) = requests.recv().await {
            if let Some(message) = message(request)
                && !outgoing.send(&message).await
            {
                break;
            }
        }
        // The other half tells how it ended.
        std::future::pending::<()>().await;
    };
    let listening = async {
        loop {
            let what = incoming.next().await;
            let is_over = !matches!(what, Ok(Some(_)));
            let what = what.map(|answer| answer.map(&response));
            if sayer.send(Said { stream, what }).await.is_err() || is_over {
                return;
            }
        }
    };
    tokio::select! {
        () = speaking => {}
        () = listening => {}
    }
}
