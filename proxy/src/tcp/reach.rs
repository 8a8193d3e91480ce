//! From a client's connection to an endpoint's: the cluster, the host, as many attempts as are allowed.

use std::rc::Rc;

use super::Session;
use super::ahead::Reached;
use super::line::Line;
use super::tunnel::TunnelError;
use crate::cluster::{DynamicHost, HostId, LocalCluster, LocalHost, Outcome, PickContext};
use crate::config::cluster::Discovery;
use crate::config::listener::NetworkFilter;
use crate::config::route::Priority;
use crate::config::subset::MetadataMatch;
use crate::config::tcp::Tunneling;
use crate::http::forward_proxy;
use crate::net::listening::known;
use crate::pool::Dedicated;
use crate::pool::circuit_breaker::ConnectionPermit;
use crate::route;
use crate::telemetry::response_flags::ResponseFlags;
use crate::upstream::failure::ConnectError;
use crate::worker::Held;

/// How often another host is looked for in place of one that has just failed.
const LOOK_FOR_OTHERS: u32 = 3;

impl Session {
    /// A connection to an endpoint; none if there is none to be had. What was tried is noted.
    pub(super) async fn reach(&self, snapshot: &Held) -> Option<Reached> {
        let (name, wanted) = self.cluster();
        let Some(spec) = snapshot.clusters.get(name) else {
            self.stats.downstream_cx_no_route.inc();
            self.flag(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        self.upstream.borrow_mut().cluster = Some(spec.config.name.clone());
        let cluster = self.worker.clusters.get(spec);
        let mut failed = Vec::new();
        loop {
            match self.attempt(&cluster, wanted, &mut failed).await {
                Ok(connection) => return Some(connection),
                Err(Again(true)) => self.back_off(failed.len()).await,
                Err(Again(false)) => return None,
            }
        }
    }

    async fn attempt(
        &self,
        cluster: &Rc<LocalCluster>,
        wanted: Option<&MetadataMatch>,
        failed: &mut Vec<HostId>,
    ) -> Result<Reached, Again> {
        let means = match &self.proxy.tunneling {
            Some(config) => Means::Tunnel(config, cluster.spec().config.buffer_limit),
            None => Means::Connection(self.permit(cluster)?),
        };
        if failed.len() >= self.proxy.max_connect_attempts.get() as usize {
            cluster.stats.upstream_cx_connect_attempts_exceeded.inc();
            self.flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return Err(Again(false));
        }
        let hash = known(self.downstream.remote.ip()).filter(|_| self.proxy.hash_source_ip);
        let dynamic = self.name_host(cluster).await?;
        let context = PickContext {
            omit: &[],
            excluded: &[],
            avoid: failed,
            attempts: if failed.is_empty() { 0 } else { LOOK_FOR_OTHERS },
            hash: hash.map(route::hash::address),
            metadata_match: wanted,
            dynamic: dynamic.as_ref(),
            override_host: None,
        };
        let picked = loop {
            match self.worker.with_random(|random| cluster.pick(&context, random)) {
                Ok(picked) => break picked,
                Err(unready) => unready.ready().await,
            }
        };
        let Some(host) = picked else {
            cluster.stats.upstream_cx_none_healthy.inc();
            self.flag(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return Err(Again(false));
        };
        self.note_host(&host);
        // From before it is reached: it may fail while the connection is being made.
        let cuts = cluster.spec().config.hosts.close_connections_on_failure;
        let depends_on = cuts.then(|| host.watch());
        match self.open(&host, means).await {
            Ok(open) => {
                cluster.observe(&host, Outcome::Response(200));
                Ok(Reached { depends_on, ..open })
            }
            Err(error) => {
                self.note_failure(cluster, &host, &error)?;
                failed.push(host.id());
                Err(Again(true))
            }
        }
    }

    /// Counts one connection more in the circuit breaker.
    fn permit(&self, cluster: &LocalCluster) -> Result<ConnectionPermit, Again> {
        cluster.breaker(Priority::Default).try_connection().ok_or_else(|| {
            cluster.stats.upstream_cx_overflow.inc();
            self.flag(ResponseFlags::UPSTREAM_OVERFLOW);
            Again(false)
        })
    }

    /// The way to `host`.
    async fn open(&self, host: &LocalHost, means: Means<'_>) -> Result<Reached, TunnelError> {
        let (line, usage, buffer_limit, ends) = match means {
            Means::Tunnel(config, buffer_limit) => {
                let (tunnel, ends) = self.tunnel(config, host).await?;
                (Line::Tunnel(Box::new(tunnel)), None, buffer_limit, ends)
            }
            Means::Connection(permit) => {
                let Dedicated { stream, local_address, remote_address, peer, buffer_limit, usage } =
                    host.dedicate(permit, &self.downstream.client()).await?;
                let ends = (local_address, remote_address, peer);
                (Line::Direct(stream), Some(usage), buffer_limit, ends)
            }
        };
        let mut facts = self.upstream.borrow_mut();
        (facts.local, facts.remote, facts.tls) = ends;
        Ok(Reached { line, usage, buffer_limit, depends_on: None, greeting: Vec::new() })
    }

    /// The endpoint that the connection names itself, if the cluster's endpoints are found so.
    async fn name_host(&self, cluster: &LocalCluster) -> Result<Option<DynamicHost>, Again> {
        let spec = cluster.spec();
        if !matches!(spec.config.discovery, Discovery::ForwardProxy(_)) {
            return Ok(cluster.original_dst(|_| None, self.downstream.original_dst));
        }
        let Some(name) = self.downstream.server_name.as_deref() else { return Ok(None) };
        let port = self.chain.config.filters.iter().find_map(|filter| match filter {
            NetworkFilter::SniForwardProxy { port, .. } => Some(*port),
            _ => None,
        });
        let authority = port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let named = forward_proxy::endpoint(&self.worker, spec, &authority).await.transpose();
        named.map_err(|reason| {
            tracing::debug!(connection = self.downstream.id, %authority, reason, "no host");
            cluster.stats.upstream_cx_none_healthy.inc();
            self.flag(ResponseFlags::NO_HEALTHY_UPSTREAM);
            Again(false)
        })
    }

    fn note_host(&self, host: &LocalHost) {
        let mut facts = self.upstream.borrow_mut();
        facts.attempts += 1;
        facts.host = Some(host.address().clone());
        facts.hostname = Some(host.hostname());
    }

    /// Notes why a host could not be reached; an error if no other should be tried.
    fn note_failure(
        &self,
        cluster: &LocalCluster,
        host: &LocalHost,
        error: &TunnelError,
    ) -> Result<(), Again> {
        tracing::debug!(connection = self.downstream.id, host = %host.address(), %error, "cannot connect");
        self.upstream.borrow_mut().failure = error.transport_failure();
        let outcome = match error {
            TunnelError::Connect(ConnectError::Overflow(_)) => {
                self.flag(ResponseFlags::UPSTREAM_OVERFLOW);
                return Err(Again(false));
            }
            TunnelError::Connect(ConnectError::Timeout) => Outcome::Timeout,
            _ => Outcome::Failed,
        };
        self.flag(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        cluster.observe(host, outcome);
        Ok(())
    }

    async fn back_off(&self, failed: usize) {
        let failed = u32::try_from(failed).unwrap_or(u32::MAX);
        if let Some(backoff) = self.proxy.backoff
            && failed < self.proxy.max_connect_attempts.get()
        {
            let random = self.worker.with_random(|random| random.f64());
            tokio::time::sleep(backoff.wait(failed, random)).await;
        }
    }

    /// The cluster's name, as a filter before this one or its configuration says, and what is wanted there.
    fn cluster(&self) -> (&str, Option<&MetadataMatch>) {
        let by_name = self.chain.config.filters.contains(&NetworkFilter::SniCluster);
        let server_name = self.downstream.server_name.as_deref().filter(|_| by_name);
        let (name, own) = match server_name {
            Some(name) => (name, None),
            None => self.proxy.cluster.choose(self.random),
        };
        (name, own.or(self.proxy.metadata_match.as_deref()))
    }
}

/// How an endpoint is reached.
enum Means<'a> {
    /// By a connection of its own.
    Connection(ConnectionPermit),
    /// Through a tunnel, whose cluster has this `per_connection_buffer_limit_bytes`.
    Tunnel(&'a Tunneling, u32),
}

/// An attempt failed; whether another may be made.
struct Again(bool);
