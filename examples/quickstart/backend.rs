//! The demo backend: says its version, and who the sidecar says the caller is.

use std::convert::Infallible;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

/// Serves HTTP/1.1 on `port` until the process is ended.
pub(crate) async fn serve(version: &str, port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("the backend {version} cannot listen on 127.0.0.1:{port}"))?;
    loop {
        let (tcp, _) = listener.accept().await?;
        let version = version.to_owned();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(answer(&version, &request)));
            // A client that goes away ends its own connection and nothing else.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}

fn answer(version: &str, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let caller = header("x-forwarded-client-cert").and_then(|cert| cert.split("URI=").nth(1));
    let body = json!({
        "version": version,
        "path": request.uri().path(),
        "caller": caller,
        "request_id": header("x-request-id"),
    });
    let mut response = Response::new(Full::from(format!("{body}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
