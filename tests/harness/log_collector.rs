//! Collectors of access logs over gRPC: in OTLP, and the streams of an `AccessLogService`.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use xds::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use xds::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use xds::opentelemetry::proto::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use xds::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};

type Reports<M> = Arc<Mutex<Vec<M>>>;

/// A collector of access logs, which goes away when dropped.
#[derive(Debug)]
pub struct LogCollector<M = ExportLogsServiceRequest> {
    address: SocketAddr,
    reports: Reports<M>,
    /// Of its own, so that its connections end with it.
    runtime: Option<Runtime>,
}

/// A collector that is an `AccessLogService`.
pub type AccessLogServer = LogCollector<StreamAccessLogsMessage>;

impl LogCollector {
    /// Starts one that speaks OTLP.
    pub fn start() -> Self {
        Self::serve(([127, 0, 0, 1], 0).into(), |reports| {
            Routes::new(LogsServiceServer::new(Service(reports)))
        })
    }
}

impl AccessLogServer {
    /// Starts an `AccessLogService`.
    pub fn streaming() -> Self {
        Self::streaming_at(([127, 0, 0, 1], 0).into())
    }

    /// Starts an `AccessLogService` at a given address.
    pub fn streaming_at(address: SocketAddr) -> Self {
        Self::serve(address, |reports| Routes::new(AccessLogServiceServer::new(Service(reports))))
    }
}

impl<M: Clone> LogCollector<M> {
    fn serve(address: SocketAddr, routes: impl FnOnce(Reports<M>) -> Routes) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
        let reports = Reports::default();
        let routes = routes(Arc::clone(&reports));
        runtime.spawn(async move {
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        drop(entered);
        Self { address, reports, runtime: Some(runtime) }
    }

    /// What it has been sent so far.
    pub fn reports(&self) -> Vec<M> {
        self.reports.lock().clone()
    }
}

impl<M> Drop for LogCollector<M> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl<M> From<&LogCollector<M>> for SocketAddr {
    fn from(collector: &LogCollector<M>) -> Self {
        collector.address
    }
}

struct Service<M>(Reports<M>);

#[tonic::async_trait]
impl LogsService for Service<ExportLogsServiceRequest> {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse { partial_success: None }))
    }
}

#[tonic::async_trait]
impl AccessLogService for Service<StreamAccessLogsMessage> {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            self.0.lock().push(message);
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}
