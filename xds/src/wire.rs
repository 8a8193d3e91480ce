//! The messages of a stream, of either variant of the protocol.

use crate::envoy::config::core::v3::Node;
use crate::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::google::rpc::Status;
use crate::type_url::Variant;

/// What a client sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(DiscoveryRequest),
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// State of the world.
    Sotw(DiscoveryResponse),
    /// Incremental.
    Delta(DeltaDiscoveryResponse),
}

impl Request {
    /// Its variant of the protocol.
    pub fn variant(&self) -> Variant {
        match self {
            Self::Sotw(_) => Variant::StateOfTheWorld,
            Self::Delta(_) => Variant::Incremental,
        }
    }

    /// The URL of the resources' type.
    pub fn type_url(&self) -> &str {
        match self {
            Self::Sotw(request) => &request.type_url,
            Self::Delta(request) => &request.type_url,
        }
    }

    /// Who asks; guaranteed on a stream's first request only.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::Sotw(request) => request.node.as_ref(),
            Self::Delta(request) => request.node.as_ref(),
        }
    }

    /// The response this one answers; empty if none.
    pub fn nonce(&self) -> &str {
        match self {
            Self::Sotw(request) => &request.response_nonce,
            Self::Delta(request) => &request.response_nonce,
        }
    }

    /// Why that response was refused.
    pub fn error_detail(&self) -> Option<&Status> {
        match self {
            Self::Sotw(request) => request.error_detail.as_ref(),
            Self::Delta(request) => request.error_detail.as_ref(),
        }
    }
}

impl Response {
    /// The URL of the resources' type.
    pub fn type_url(&self) -> &str {
        match self {
            Self::Sotw(response) => &response.type_url,
            Self::Delta(response) => &response.type_url,
        }
    }

    /// What a request that answers it bears.
    pub fn nonce(&self) -> &str {
        match self {
            Self::Sotw(response) => &response.nonce,
            Self::Delta(response) => &response.nonce,
        }
    }
}
