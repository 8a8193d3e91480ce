//! How a host is reached for its checks: the address, TLS, and a connection that speaks HTTP.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use crate::cluster::ClusterSpec;
use crate::cluster::settings::transport;
use crate::config::address::HostAddress;
use crate::config::cluster::Cluster;
use crate::config::endpoint::Endpoint;
use crate::config::health_check::HealthCheck;
use crate::config::{HashMap, Name};
use crate::net::body::RequestBody;
use crate::pool::Tls;
use crate::upstream::client::Client;
use crate::upstream::failure::ConnectError;
use crate::upstream::http::{self as codec, Protocol, Sender};
use crate::upstream::request::{for_http1, for_http2};
use crate::upstream::socket::Observer;
use crate::upstream::{Dialed, Security, dial};

/// One host to check, with all that says how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) cluster: Arc<Cluster>,
    pub(super) check: Arc<HealthCheck>,
    /// Where requests go.
    pub(super) host_address: HostAddress,
    /// Where it is checked, which need not be the same.
    pub(super) address: HostAddress,
    /// The name to send as `Host`, if the endpoint has one for checks.
    pub(super) check_host: Box<str>,
    /// The name it was configured or resolved by; may be empty.
    pub(super) hostname: Name,
    pub(super) tls: Option<Tls>,
}

impl Target {
    /// How `endpoint`, which is at `address`, is checked. None if it is not, or if its TLS could not be
    /// built: plain text is no substitute.
    pub(super) fn new(
        spec: &ClusterSpec,
        endpoint: &Endpoint,
        address: &HostAddress,
    ) -> Option<Self> {
        let check = Arc::clone(spec.config.hosts.health_check.as_ref()?);
        let own = endpoint.health_check.as_deref();
        let host_address = address.clone();
        let mut address = own.and_then(|own| own.address.as_ref()).unwrap_or(address).clone();
        if let (HostAddress::Ip(socket), Some(port)) = (&mut address, own.and_then(|own| own.port))
        {
            socket.set_port(port);
        }
        let criteria: &HashMap<String, String> =
            check.socket_criteria.as_ref().unwrap_or(&endpoint.transport_socket_match);
        Some(Self {
            tls: transport(spec, criteria)?,
            cluster: Arc::clone(&spec.config),
            check,
            host_address,
            address,
            check_host: own.map(|own| own.hostname.clone()).unwrap_or_default(),
            hostname: Arc::clone(&endpoint.hostname),
        })
    }

    /// Whether a check of `other` is a check of this.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a.client, &b.client),
            (a, b) => a.is_none() && b.is_none(),
        };
        tls && self.check == other.check
            && self.address == other.address
            && self.check_host == other.check_host
            && self.hostname == other.hostname
            && self.cluster.http == other.cluster.http
            && self.cluster.connecting == other.cluster.connecting
    }

    /// What is sent as `Host` or `:authority`; `configured` is what the check says.
    pub(super) fn host<'a>(&'a self, configured: &'a str) -> &'a str {
        [&*self.check_host, configured]
            .into_iter()
            .find(|it| !it.is_empty())
            .unwrap_or(&self.cluster.name)
    }

    /// Connects, and offers `protocol` by ALPN unless the configuration says what to offer.
    pub(super) async fn dial(&self, protocol: Option<&str>) -> Result<Dialed, ConnectError> {
        let configured = |tls: &Tls| -> Vec<Box<str>> {
            let own = &self.check.alpn;
            let offers = if own.is_empty() { &tls.config.common.alpn } else { own };
            offers.iter().map(|offer| (**offer).into()).collect()
        };
        let configured = self.tls.as_ref().map(configured).unwrap_or_default();
        let offers: Vec<&str> = configured.iter().map(|it| &**it).collect();
        let alpn = if offers.is_empty() { protocol.as_slice() } else { &offers };
        let security = self.tls.as_ref().map(|tls| {
            let by_hostname = tls.config.auto_host_sni && !self.hostname.is_empty();
            let configured = tls.config.sni.as_deref();
            Security {
                client: &tls.client,
                server_name: if by_hostname { Some(&self.hostname) } else { configured },
                certified_name: None,
                alpn,
            }
        });
        let target = crate::upstream::Target {
            address: &self.address,
            additional_addresses: &[],
            connecting: &self.cluster.connecting,
            connect_timeout: self.check.timeout,
            client: &Client::default(),
            tls: security,
        };
        dial(target, || {}).await
    }
}

/// An HTTP connection for checks. Closed when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    observer: Observer,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects to `target` and begins HTTP.
    pub(super) async fn open(target: &Target, protocol: Protocol) -> Result<Self, ConnectError> {
        let offer = match protocol {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
        };
        let Dialed { stream, observer, .. } = target.dial(Some(offer)).await?;
        let (sender, driver) = codec::handshake(stream, protocol, &target.cluster)
            .await
            .map_err(|error| ConnectError::Http(error.to_string()))?;
        let driver = tokio::task::spawn_local(async move {
            // What goes wrong is told to the request that suffers from it.
            let _ = codec::drive(driver, |_| {}).await;
        });
        Ok(Self { sender, observer, driver })
    }

    /// Whether another check can be made on it.
    pub(super) fn is_usable(&self) -> bool {
        let quiet = match self.sender {
            Sender::Http1(_) => self.observer.is_quiet(),
            // HTTP/2 may have something to say at any time.
            Sender::Http2(_) => true,
        };
        quiet && self.sender.is_ready()
    }

    /// Sends `request`, whose authority is in `Host`; none if no response came.
    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        secure: bool,
    ) -> Option<Response<Incoming>> {
        match self.sender {
            Sender::Http1(_) => for_http1(&mut request),
            Sender::Http2(_) if secure => for_http2(&mut request, http::uri::Scheme::HTTPS),
            Sender::Http2(_) => for_http2(&mut request, http::uri::Scheme::HTTP),
        }
        if !std::future::poll_fn(|context| self.sender.poll_ready(context)).await {
            return None;
        }
        self.sender.send(request).await.ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
