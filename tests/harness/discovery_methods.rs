//! The streaming methods of xDS, aggregated or of one kind, on a port or a Unix socket: what is behind them sees
//! requests and gives responses, whichever method they came by.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use http::Request;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::type_url::{ResourceType, Variant};
use xds::wire;

/// What a client says on a stream.
pub(crate) type Requests = Pin<Box<dyn Stream<Item = Result<wire::Request, Status>> + Send>>;
/// What it is answered.
pub(crate) type Responses = Pin<Box<dyn Stream<Item = Result<wire::Response, Status>> + Send>>;

/// A stream that a client has opened.
pub(crate) struct Opened {
    pub(crate) variant: Variant,
    /// The only kind of resources on it; none if it carries all kinds.
    pub(crate) only: Option<ResourceType>,
    pub(crate) requests: Requests,
}

/// What is behind the methods.
pub(crate) type Serve = Arc<dyn Fn(Opened) -> Responses + Send + Sync>;

/// A server of the methods, which goes away when dropped: it has a runtime of its own, so that its connections end
/// with it.
#[derive(Debug)]
pub(crate) struct Methods {
    address: Option<SocketAddr>,
    path: Option<PathBuf>,
    runtime: Option<Runtime>,
}

impl Methods {
    /// On a free port.
    pub(crate) fn start(serve: Serve) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = runtime();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let service = tower::service_fn(move |request| answer(Arc::clone(&serve), request));
            Server::builder().serve_with_incoming(service, incoming).await.unwrap();
        });
        Self { address: Some(address), path: None, runtime: Some(runtime) }
    }

    /// On a Unix socket.
    pub(crate) fn start_at(path: &Path, serve: Serve) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = runtime();
        runtime.spawn(async move {
            let listener = UnixListener::from_std(listener).unwrap();
            let accept = async |listener: UnixListener| {
                let accepted = listener.accept().await.map(|(stream, _)| stream);
                Some((accepted, listener))
            };
            let incoming = futures_util::stream::unfold(listener, accept);
            let service = tower::service_fn(move |request| answer(Arc::clone(&serve), request));
            Server::builder().serve_with_incoming(service, incoming).await.unwrap();
        });
        Self { address: None, path: Some(path.to_owned()), runtime: Some(runtime) }
    }

    /// Where it listens, if that is a port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("it listens on a Unix socket")
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Drop for Methods {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Which stream a method opens.
fn method(path: &str) -> Option<(Variant, Option<ResourceType>)> {
    let variants = [Variant::StateOfTheWorld, Variant::Incremental];
    let all = variants.into_iter().flat_map(|variant| {
        let one = ResourceType::ALL.map(|kind| (kind.method(variant), (variant, Some(kind))));
        [(variant.aggregated_method(), (variant, None))].into_iter().chain(one)
    });
    all.into_iter().find(|(method, _)| *method == path).map(|(_, stream)| stream)
}

async fn answer(serve: Serve, request: Request<Body>) -> Result<http::Response<Body>, Infallible> {
    let Some((variant, only)) = method(request.uri().path()) else {
        return Ok(Status::unimplemented("no such method").into_http());
    };
    Ok(match variant {
        Variant::StateOfTheWorld => {
            let open = |requests: tonic::Request<Streaming<DiscoveryRequest>>| {
                let requests = requests.into_inner().map(|it| it.map(wire::Request::Sotw));
                let requests: Requests = Box::pin(requests);
                let answers = serve(Opened { variant, only, requests });
                let answers = answers.filter_map(async |answer| match answer {
                    Ok(wire::Response::Sotw(response)) => Some(Ok(response)),
                    Ok(wire::Response::Delta(_)) => None,
                    Err(status) => Some(Err(status)),
                });
                std::future::ready(Ok::<_, Status>(Response::new(answers)))
            };
            let codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
            tonic::server::Grpc::new(codec).streaming(tower::service_fn(open), request).await
        }
        Variant::Incremental => {
            let open = |requests: tonic::Request<Streaming<DeltaDiscoveryRequest>>| {
                let requests = requests.into_inner().map(|it| it.map(wire::Request::Delta));
                let requests: Requests = Box::pin(requests);
                let answers = serve(Opened { variant, only, requests });
                let answers = answers.filter_map(async |answer| match answer {
                    Ok(wire::Response::Delta(response)) => Some(Ok(response)),
                    Ok(wire::Response::Sotw(_)) => None,
                    Err(status) => Some(Err(status)),
                });
                std::future::ready(Ok::<_, Status>(Response::new(answers)))
            };
            let codec = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default();
            tonic::server::Grpc::new(codec).streaming(tower::service_fn(open), request).await
        }
    })
}
