//! Calls of gRPC methods: one message each way, or a stream of them.

use std::cell::Cell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use prost::Message;
use tokio::sync::mpsc;

use super::{CallError, Caller};
use crate::config::service::GrpcService;
use crate::net::body::{BoxError, RequestBody};
use crate::net::grpc::{self, Frames, Status};
use crate::pool::ResponseBody;

/// Longest message that is taken, in bytes, unless more is asked for (Envoy's default is no limit; gRPC's is 4 MiB).
pub const LONGEST_MESSAGE: usize = 4 << 20;
/// Messages of a stream that wait to be sent.
const WAITING: usize = 16;

/// Calls `method` (`/package.Service/Method`) of `service` with `message`.
///
/// # Errors
/// The status of the service, or what stands for having none: `UNAVAILABLE`, or `DEADLINE_EXCEEDED` after
/// `service.timeout`.
pub async fn unary<A: Message + Default>(
    caller: &Caller,
    service: &GrpcService,
    method: &'static str,
    message: &impl Message,
) -> Result<A, Status> {
    let request = request(service, method, RequestBody::full(grpc::frame(message)));
    let answered = Cell::new(false);
    let calling = async {
        let response =
            caller.call(&service.cluster, request, None).await.map_err(|error| status(&error))?;
        answered.set(true);
        let mut answers = Answers::new(response, LONGEST_MESSAGE)?;
        let answer = answers.next().await?;
        // The status comes after the answer.
        let rest: Option<A> = answers.next().await?;
        match (answer, rest) {
            (Some(answer), None) => Ok(answer),
            _ => Err(Status::new(Status::INTERNAL, "not exactly one message came back")),
        }
    };
    let Some(timeout) = service.timeout else { return calling.await };
    let late = |_| {
        caller.expired(&service.cluster, answered.get());
        Err(status(&CallError::Timeout(timeout)))
    };
    tokio::time::timeout(timeout, calling).await.unwrap_or_else(late)
}

/// Opens a stream of `method` of `service`: what goes into the first half is sent, what comes back comes out of the
/// second. Neither needs to be polled for the other to go on. Dropping the first ends our part of the stream;
/// dropping the second breaks it off. A message that comes back may have up to `longest` bytes.
pub fn stream<Q: Message, A: Message + Default + 'static>(
    caller: Rc<Caller>,
    service: &GrpcService,
    method: &'static str,
    longest: usize,
) -> (Outgoing<Q>, Incoming<A>) {
    let (sender, messages) = mpsc::channel(WAITING);
    let service = GrpcService { timeout: None, ..service.clone() };
    let request = request(&service, method, RequestBody::stream(Messages(messages)));
    let opening = async move {
        let response =
            caller.call(&service.cluster, request, None).await.map_err(|error| status(&error))?;
        Answers::new(response, longest)
    };
    let (answers, answer) = mpsc::channel(WAITING);
    tokio::task::spawn_local(async move {
        let passing = async {
            let mut stream = match opening.await {
                Ok(stream) => stream,
                Err(status) => return drop(answers.send(Err(status)).await),
            };
            while let Some(message) = stream.next().await.transpose() {
                let last = message.is_err();
                if answers.send(message).await.is_err() || last {
                    return;
                }
            }
        };
        tokio::select! {
            () = passing => {}
            () = answers.closed() => {}
        }
    });
    (Outgoing { sender, of: PhantomData }, Incoming { answers: answer })
}

/// Our half of a stream.
#[derive(Debug)]
pub struct Outgoing<Q> {
    sender: mpsc::Sender<Bytes>,
    of: PhantomData<Q>,
}

impl<Q: Message> Outgoing<Q> {
    /// Sends `message`, when those before it are on their way. False if the stream is over.
    pub async fn send(&self, message: &Q) -> bool {
        self.sender.send(grpc::frame(message)).await.is_ok()
    }

    /// Sends `message`, and waits until it, like all before it, has gone to a connection. False if the stream is over.
    pub async fn deliver(&self, message: &Q) -> bool {
        self.send(message).await && self.sender.reserve_many(WAITING).await.is_ok()
    }
}

/// The service's half of a stream.
#[derive(Debug)]
pub struct Incoming<A> {
    answers: mpsc::Receiver<Result<A, Status>>,
}

impl<A> Incoming<A> {
    /// The next message; none when the service has ended the stream well.
    ///
    /// # Errors
    /// The status that it ended with otherwise, once.
    pub async fn next(&mut self) -> Result<Option<A>, Status> {
        self.answers.recv().await.transpose()
    }

    /// Whether the stream is over. What it said that nobody took is lost.
    pub fn is_over(&mut self) -> bool {
        while self.answers.try_recv().is_ok() {}
        self.answers.is_closed()
    }
}

fn request(service: &GrpcService, method: &'static str, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(method);
    let headers = request.headers_mut();
    headers.insert(HOST, service.authority.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    for (name, value) in &service.metadata {
        headers.append(name, value.clone());
    }
    if let Some(timeout) = service.timeout {
        headers.insert("grpc-timeout", grpc::timeout(timeout));
    }
    request
}

fn status(error: &CallError) -> Status {
    let code = match error {
        CallError::Timeout(_) => Status::DEADLINE_EXCEEDED,
        _ => Status::UNAVAILABLE,
    };
    Status::new(code, error.to_string())
}

/// The messages of an answer.
struct Answers {
    body: ResponseBody,
    frames: Frames,
    trailers: Option<HeaderMap>,
}

impl Answers {
    fn new(response: Response<ResponseBody>, longest: usize) -> Result<Self, Status> {
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK || !grpc::is_grpc(parts.headers.get(CONTENT_TYPE)) {
            return Err(Status::of_http(parts.status));
        }
        // An answer without a message may have its status in its head.
        if let Some(status) = Status::of(&parts.headers) {
            status?;
        }
        Ok(Self { body, frames: Frames::new(longest), trailers: None })
    }

    async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, Status> {
        loop {
            if let Some(message) = self.frames.message()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frames.push(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Err(status(&CallError::Broken(error))),
                None => break,
            }
        }
        if self.frames.is_partial() {
            return Err(Status::new(Status::INTERNAL, "a message broke off"));
        }
        match self.trailers.take().as_ref().map(Status::of) {
            Some(Some(Err(status))) => Err(status),
            Some(None) => Err(Status::new(Status::UNKNOWN, "no status came")),
            Some(Some(Ok(()))) | None => Ok(None),
        }
    }
}

/// The messages of our half as a body.
struct Messages(mpsc::Receiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}
