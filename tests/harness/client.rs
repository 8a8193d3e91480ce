//! A plain HTTP client that does what it is told: no redirects, no retries, no pool.

pub mod raw;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::backend::body::{Body, Step, scripted};
use crate::eventually::within_patience;
use crate::reply::Reply;
use tls::TlsOptions;

/// Where and how requests are sent.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    version: Version,
    tls: Option<TlsOptions>,
    first_words: Option<Bytes>,
    source: Option<IpAddr>,
}

impl Client {
    /// HTTP/1.1 in plain text.
    pub fn http1(address: SocketAddr) -> Self {
        Self { address, version: Version::HTTP_11, tls: None, first_words: None, source: None }
    }

    /// HTTP/2 with prior knowledge, in plain text.
    pub fn http2(address: SocketAddr) -> Self {
        Self { address, version: Version::HTTP_2, tls: None, first_words: None, source: None }
    }

    /// The same client over TLS; ALPN offers exactly the client's protocol.
    #[must_use]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(options);
        self
    }

    /// The same client, which begins each connection with these words, such as a PROXY header.
    #[must_use]
    pub fn saying_first(mut self, words: &str) -> Self {
        self.first_words = Some(words.to_owned().into());
        self
    }

    /// The same client, at an address of this machine, such as `127.0.0.2`.
    #[must_use]
    pub fn coming_from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().unwrap());
        self
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// A POST without body; see [`Call::body`].
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// A request with any method.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call {
            client: self.clone(),
            method,
            path: path.to_owned(),
            host: "test.example".to_owned(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        }
    }

    async fn open(&self) -> Result<TcpStream> {
        let mut tcp = match self.source {
            None => TcpStream::connect(self.address).await,
            Some(source) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(source, 0))?;
                socket.connect(self.address).await
            }
        }
        .context("connect")?;
        tcp.set_nodelay(true)?;
        if let Some(words) = &self.first_words {
            tcp.write_all(words).await?;
        }
        Ok(tcp)
    }

    /// Whether `bytes`, sent on a connection of their own, come back.
    pub async fn echoes(&self, bytes: &[u8]) -> bool {
        let echoes = async {
            let tcp = self.open().await?;
            let mut back = vec![0; bytes.len()];
            match &self.tls {
                None => exchange(tcp, bytes, &mut back).await?,
                Some(options) => {
                    exchange(options.handshake(tcp, self.version).await?, bytes, &mut back).await?;
                }
            }
            Ok(back == bytes)
        };
        let result: Result<bool> = within_patience("an echo", echoes).await;
        result.unwrap_or(false)
    }

    /// Opens one connection.
    pub async fn connect(&self) -> Result<Connection> {
        let tcp = self.open().await?;
        match &self.tls {
            None => Connection::open(TokioIo::new(tcp), self.version).await,
            Some(options) => {
                let stream = options.handshake(tcp, self.version).await?;
                Connection::open(TokioIo::new(stream), self.version).await
            }
        }
    }
}

async fn exchange<S>(mut stream: S, bytes: &[u8], back: &mut [u8]) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(bytes).await?;
    stream.flush().await?;
    stream.read_exact(back).await?;
    Ok(())
}

/// One request under construction.
#[derive(Debug, Clone)]
pub struct Call {
    client: Client,
    method: Method,
    path: String,
    host: String,
    headers: HeaderMap,
    body: Vec<Step>,
}

impl Call {
    /// Adds a header; one of the same name stays.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// `Host`, or `:authority`; `test.example` otherwise.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// The whole body.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.body_after(Duration::ZERO, body)
    }

    /// One more piece of body, sent `delay` after the one before.
    #[must_use]
    pub fn body_after(mut self, delay: Duration, piece: impl Into<Bytes>) -> Self {
        self.body.push(Step::data(delay, piece.into()));
        self
    }

    /// Ends the body with a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        if self.client.version < Version::HTTP_2 {
            self = self.header("trailer", name);
        }
        self.body.push(Step::trailer(name, value));
        self
    }

    /// Sends it on a connection of its own; a transport failure fails the test.
    pub async fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }

    /// Sends it on a connection of its own.
    pub async fn try_send(self) -> Result<Reply> {
        let mut connection = self.client.connect().await?;
        connection.send(self).await
    }

    fn into_request(self) -> Request<Body> {
        let is_http2 = self.client.version == Version::HTTP_2;
        let scheme = if self.client.tls.is_some() { "https" } else { "http" };
        let uri = match is_http2 {
            true => format!("{scheme}://{}{}", self.host, self.path),
            false => self.path,
        };
        let mut request = Request::new(scripted(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.parse().unwrap();
        *request.headers_mut() = self.headers;
        if !is_http2 {
            request.headers_mut().insert(http::header::HOST, self.host.parse().unwrap());
        }
        request
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    driver: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    Http2(hyper::client::conn::http2::SendRequest<Body>),
}

impl Connection {
    async fn open<S>(io: TokioIo<S>, version: Version) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if version == Version::HTTP_2 {
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake(io).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            return Ok(Self { sender: Sender::Http2(sender), driver });
        }
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender: Sender::Http1(sender), driver })
    }

    /// Sends one request and reads the whole response.
    pub async fn send(&mut self, call: Call) -> Result<Reply> {
        let what = format!("{} {}", call.method, call.path);
        within_patience(&what, async {
            let response = self.send_head(call).await?;
            read(response).await
        })
        .await
    }

    /// Sends one request and returns when the response's head is there.
    pub async fn send_head(&mut self, call: Call) -> Result<http::Response<Incoming>> {
        let request = call.into_request();
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.context("connection closed")?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await.context("connection closed")?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// One more handle for concurrent requests; HTTP/2 only.
    pub fn another_handle(&self) -> Self {
        let Sender::Http2(sender) = &self.sender else {
            panic!("HTTP/1.1 has one request at a time")
        };
        Self { sender: Sender::Http2(sender.clone()), driver: tokio::spawn(async {}) }
    }

    /// Whether the peer has closed it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Reads a response to its end.
pub async fn read(response: http::Response<Incoming>) -> Result<Reply> {
    use http_body_util::BodyExt;

    let (head, body) = response.into_parts();
    let body = body.collect().await.context("response body cut short")?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Reply {
        status: head.status.as_u16(),
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    })
}
