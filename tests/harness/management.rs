//! A management server: it serves what a scenario puts into it, by the server half of crate `xds`, and tells what its
//! clients made of that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use prost::{Message, Name};
use prost_types::Any;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use xds::server::{self, Heard, Session};
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::ResourceType;
use xds::wire;
use xds::yaml::Document;

use crate::discovery_methods::{Methods, Opened, Responses, Serve};

/// A management server, which goes away when dropped.
#[derive(Debug)]
pub struct ManagementServer {
    methods: Methods,
    shared: Arc<Shared>,
}

type Resources = BTreeMap<(ResourceType, Arc<str>), Arc<Entry>>;

#[derive(Debug, Default)]
struct Shared {
    resources: Mutex<Resources>,
    snapshot: watch::Sender<Snapshot>,
    /// How often all streams were ended.
    cuts: watch::Sender<u64>,
    told: Mutex<Told>,
}

/// What went over all streams so far.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// What the requests meant, in order.
    pub heard: Vec<Heard>,
    /// The responses.
    pub said: Vec<wire::Response>,
    /// Streams that were opened.
    pub streams: u64,
}

impl Told {
    /// The refusals: of what, and why.
    pub fn nacks(&self) -> Vec<(ResourceType, &str)> {
        let nack = |heard| match heard {
            &Heard::Nacked(kind, _, ref error) => Some((kind, &*error.message)),
            _ => None,
        };
        self.heard.iter().filter_map(nack).collect()
    }

    /// The kinds of the responses, in order.
    pub fn said_of(&self) -> Vec<ResourceType> {
        self.said.iter().filter_map(|response| ResourceType::of(response.type_url())).collect()
    }
}

/// A message of type `M`, packed.
pub fn resource<M: Message + Name + Default>(fields: &Value) -> Any {
    let message: M = Document::new("resource", fields.to_string()).read().unwrap();
    Any::from_msg(&message).unwrap()
}

impl ManagementServer {
    /// Starts one that has nothing.
    pub fn start() -> Self {
        let shared = Arc::default();
        Self { methods: Methods::start(serving(&shared)), shared }
    }

    /// Starts one on a Unix socket.
    pub fn start_at(path: &Path) -> Self {
        let shared = Arc::default();
        Self { methods: Methods::start_at(path, serving(&shared)), shared }
    }

    /// Adds and replaces resources, takes others away by kind and name, and publishes all of that in one step.
    pub fn publish<'a>(
        &self,
        put: impl IntoIterator<Item = Any>,
        take: impl IntoIterator<Item = (ResourceType, &'a str)>,
    ) {
        let mut resources = self.shared.resources.lock();
        for (kind, name) in take {
            resources.remove(&(kind, name.into())).expect("something to take away");
        }
        for body in put {
            let entry = Entry::new(body).unwrap();
            resources.insert((entry.kind(), Arc::clone(entry.name())), Arc::new(entry));
        }
        self.shared.snapshot.send_replace(resources.values().cloned().collect());
    }

    /// Ends all streams.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What was said so far.
    pub fn told(&self) -> Told {
        self.shared.told.lock().clone()
    }

    /// Forgets what was said so far.
    pub fn forget(&self) {
        *self.shared.told.lock() = Told::default();
    }
}

impl From<&ManagementServer> for SocketAddr {
    fn from(server: &ManagementServer) -> Self {
        server.methods.address()
    }
}

fn serving(shared: &Arc<Shared>) -> Serve {
    let shared = Arc::clone(shared);
    Arc::new(move |opened| converse(Arc::clone(&shared), opened))
}

/// Serves one stream.
fn converse(shared: Arc<Shared>, opened: Opened) -> Responses {
    let (sender, mut answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut cuts = shared.cuts.subscribe();
        tokio::select! {
            ended = serve(&shared, opened, &sender) => if let Err(status) = ended {
                let _ = sender.send(Err(status)).await;
            },
            _ = cuts.changed() => {}
        }
    });
    Box::pin(futures_util::stream::poll_fn(move |context| answers.poll_recv(context)))
}

async fn serve(
    shared: &Shared,
    opened: Opened,
    answers: &mpsc::Sender<Result<wire::Response, Status>>,
) -> Result<(), Status> {
    let Opened { variant, only, mut requests } = opened;
    let mut session = Session::new(server::Options {
        variant,
        only,
        control_plane: "scenario".into(),
        patience: server::PATIENCE,
    });
    let mut snapshots = shared.snapshot.subscribe();
    shared.told.lock().streams += 1;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        while let Some(response) = session.respond(&snapshot, Instant::now()) {
            shared.told.lock().said.push(response.clone());
            let sent = answers.send(Ok(response)).await;
            sent.map_err(|_| Status::cancelled("the client has gone"))?;
        }
        let deadline = session.deadline(Instant::now());
        let wait = deadline.map_or(Duration::MAX, |at| at.duration_since(Instant::now()));
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request.transpose()? else { return Ok(()) };
                let heard = session.receive(request, Instant::now());
                let heard = heard.map_err(|it| Status::invalid_argument(it.to_string()))?;
                shared.told.lock().heard.push(heard);
            }
            _ = snapshots.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
