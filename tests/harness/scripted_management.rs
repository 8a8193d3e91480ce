//! A management server that says exactly what a scenario makes it say, be it nonsense, and shows what it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tonic::Status;
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

use crate::discovery_methods::{Methods, Opened, Responses, Serve};

/// A scripted management server, which goes away when dropped.
#[derive(Debug)]
pub struct ScriptedManagement {
    methods: Methods,
    opened: Mutex<UnboundedReceiver<ScriptedStream>>,
}

/// A stream that a client has opened, as its server sees it. It ends when this is dropped.
#[derive(Debug)]
pub struct ScriptedStream {
    /// Which variant it speaks.
    pub variant: Variant,
    /// The only kind of resources on it; none if it carries all kinds.
    pub only: Option<ResourceType>,
    requests: UnboundedReceiver<Request>,
    /// Requests of other kinds than the one that was asked for.
    kept: VecDeque<Request>,
    responses: UnboundedSender<Result<Response, Status>>,
}

impl ScriptedManagement {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let (serve, opened) = handing_over();
        Self { methods: Methods::start(serve), opened: Mutex::new(opened) }
    }

    /// Starts one on a Unix socket.
    pub fn start_at(path: &Path) -> Self {
        let (serve, opened) = handing_over();
        Self { methods: Methods::start_at(path, serve), opened: Mutex::new(opened) }
    }

    /// The next stream that is opened.
    pub async fn stream(&self) -> ScriptedStream {
        let next = async { self.opened.lock().await.recv().await };
        timeout(crate::PATIENCE, next).await.expect("no stream is opened").unwrap()
    }
}

impl From<&ScriptedManagement> for SocketAddr {
    fn from(server: &ScriptedManagement) -> Self {
        server.methods.address()
    }
}

/// Hands over each stream that is opened.
fn handing_over() -> (Serve, UnboundedReceiver<ScriptedStream>) {
    let (sender, opened) = unbounded_channel();
    let serve = move |opened: Opened| -> Responses {
        let Opened { variant, only, requests: mut said } = opened;
        let (requests_in, requests) = unbounded_channel();
        let (responses, mut answers) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(request)) = said.next().await {
                if requests_in.send(request).is_err() {
                    return;
                }
            }
        });
        let kept = VecDeque::new();
        let _ = sender.send(ScriptedStream { variant, only, requests, kept, responses });
        Box::pin(futures_util::stream::poll_fn(move |context| answers.poll_recv(context)))
    };
    (Arc::new(serve), opened)
}

impl ScriptedStream {
    /// The next request of a kind.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn request(&mut self, kind: ResourceType) -> Request {
        let of_kind = |request: &Request| request.type_url() == kind.url();
        if let Some(at) = self.kept.iter().position(of_kind) {
            return self.kept.remove(at).unwrap();
        }
        loop {
            let next = self.requests.recv();
            let waited = timeout(crate::PATIENCE, next).await;
            let request = waited.unwrap_or_else(|_| panic!("nothing is said of {kind}"));
            let request = request.unwrap_or_else(|| panic!("the stream ended before {kind}"));
            if of_kind(&request) {
                return request;
            }
            self.kept.push_back(request);
        }
    }

    /// The next request of any kind.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn any_request(&mut self) -> Request {
        self.request_within(crate::PATIENCE).await.expect("nothing is said")
    }

    /// The next request, if one comes in that time.
    pub async fn request_within(&mut self, patience: Duration) -> Option<Request> {
        if let Some(kept) = self.kept.pop_front() {
            return Some(kept);
        }
        timeout(patience, self.requests.recv()).await.ok().map(|it| it.expect("the stream ended"))
    }

    /// Says something.
    pub fn say(&self, response: Response) {
        // If the client has gone, the scenario finds out when it waits for an answer.
        let _ = self.responses.send(Ok(response));
    }

    /// Ends the stream with an error.
    pub fn fail(self, status: Status) {
        let _ = self.responses.send(Err(status));
    }
}
