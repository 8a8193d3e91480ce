//! A collector that takes access logs in OTLP over gRPC.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use xds::opentelemetry::proto::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use xds::opentelemetry::proto::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};

type Reports = Arc<Mutex<Vec<ExportLogsServiceRequest>>>;

/// A collector of access logs, which goes away when dropped.
#[derive(Debug)]
pub struct LogCollector {
    address: SocketAddr,
    reports: Reports,
    /// Of its own, so that its connections end with it.
    runtime: Option<Runtime>,
}

impl LogCollector {
    /// Starts one.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let reports = Reports::default();
        let service = LogsServiceServer::new(Service(Arc::clone(&reports)));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, reports, runtime: Some(runtime) }
    }

    /// What it has been sent so far.
    pub fn reports(&self) -> Vec<ExportLogsServiceRequest> {
        self.reports.lock().clone()
    }
}

impl Drop for LogCollector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl From<&LogCollector> for SocketAddr {
    fn from(collector: &LogCollector) -> Self {
        collector.address
    }
}

struct Service(Reports);

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse { partial_success: None }))
    }
}
