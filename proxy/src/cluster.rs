//! Clusters: what a request is sent to. Picks an endpoint and keeps what is learned about it.

use std::sync::Arc;

use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::tls::client::ClientTls;

/// One cluster, linked: its configuration, its endpoints as discovered, and its TLS contexts.
///
/// Part of a snapshot. A change of anything in it is a new `Arc<ClusterSpec>`; what did not change should
/// keep its `Arc` (a new [`ClientTls`] makes pools drain the connections made with the old one).
#[derive(Debug)]
pub struct ClusterSpec {
    /// The cluster as configured.
    pub config: Arc<Cluster>,
    /// Its endpoints; every address is an [`crate::config::address::Address::Ip`].
    pub assignment: Arc<LoadAssignment>,
    /// TLS to its endpoints; none means plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// TLS of each of `config.transport_socket_matches`, in their order.
    pub match_tls: Vec<Option<Arc<ClientTls>>>,
}
