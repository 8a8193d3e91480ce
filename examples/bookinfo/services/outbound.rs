//! How services ask each other: over kept connections, through the proxy that `http_proxy` names.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Headers that services pass on, so that the requests that one request leads to are known to belong to it.
const PASSED_ON: [&str; 15] = [
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// Those of the headers that are passed on.
pub(super) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            passed.append(HeaderName::from_static(name), value.clone());
        }
    }
    passed
}

type Nothing = Empty<Bytes>;
type Connection = SendRequest<Nothing>;

/// The way to the other services.
#[derive(Debug)]
pub(crate) struct Outbound {
    proxy: Option<String>,
    /// Connections that wait for a request, by whom they lead to.
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

impl Outbound {
    /// Through the proxy that `http_proxy` names, if it names one.
    ///
    /// # Errors
    /// If that is no `http://HOST:PORT`.
    pub(super) fn from_environment() -> anyhow::Result<Self> {
        let proxy = match std::env::var("http_proxy") {
            Ok(url) if !url.is_empty() => {
                let uri: Uri = url.parse().context("http_proxy is no URL")?;
                let authority = uri.authority().context("http_proxy is no http://HOST:PORT")?;
                Some(authority.to_string())
            }
            _ => None,
        };
        Ok(Self { proxy, idle: Mutex::default() })
    }

    /// Without a proxy.
    pub(crate) fn direct() -> Self {
        Self { proxy: None, idle: Mutex::default() }
    }

    /// The JSON at `url`, asked for with these headers.
    ///
    /// # Errors
    /// If it does not come in time, or with another status than 200.
    pub(crate) async fn get(
        &self,
        url: &str,
        headers: HeaderMap,
        patience: Duration,
    ) -> anyhow::Result<Value> {
        let (status, body) = self.fetch(url, headers, patience).await?;
        if status != StatusCode::OK {
            bail!("{url} answers with {status}");
        }
        serde_json::from_slice(&body).with_context(|| format!("{url} answers without JSON"))
    }

    /// What is at `url`, whatever it is.
    ///
    /// # Errors
    /// If it does not come in time.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        headers: HeaderMap,
        patience: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let asking = async {
            let (to, request) = self.request(&url.parse()?, headers)?;
            let (connection, response) = self.send(&to, request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            self.idle.lock().await.entry(to).or_default().push(connection);
            anyhow::Ok((status, body))
        };
        let answer = tokio::time::timeout(patience, asking).await;
        answer.with_context(|| format!("{url} takes longer than {patience:?}"))?
    }

    /// The request for `url`, and whom it is sent to.
    fn request(&self, url: &Uri, headers: HeaderMap) -> anyhow::Result<(String, Request<Nothing>)> {
        let authority = url.authority().context("a URL without host")?.as_str();
        let mut request = Request::new(Nothing::new());
        // A proxy is told the whole URL (RFC 9112, section 3.2.2).
        *request.uri_mut() = match &self.proxy {
            Some(_) => url.clone(),
            None => url.path_and_query().map_or("/", |it| it.as_str()).parse()?,
        };
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority)?);
        Ok((self.proxy.as_deref().unwrap_or(authority).to_owned(), request))
    }

    /// Sends the request on a connection that waits, or else on a new one. A waiting one may turn out to be closed.
    async fn send(
        &self,
        to: &str,
        mut request: Request<Nothing>,
    ) -> anyhow::Result<(Connection, Response<Incoming>)> {
        while let Some(mut connection) = self.waiting(to).await {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure.into_error().into()),
                },
            }
        }
        let tcp =
            TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
        tcp.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        Ok((sender, response))
    }

    async fn waiting(&self, to: &str) -> Option<Connection> {
        self.idle.lock().await.get_mut(to)?.pop()
    }
}
