//! Responses of both variants, read as far as a proxy without use for them has to; and their bytes counted.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use xds::envoy::config::core::v3::Node;

use super::{DeltaDiscoveryRequest, DiscoveryRequest};

/// A response of one variant of the protocol.
pub(crate) trait Answer: Message + Default + 'static {
    /// What asks for it.
    type Request: Message + 'static;
    /// The method.
    const PATH: &'static str;
    /// Whether each request repeats all names.
    const REPEATS: bool;

    /// A request; with a nonce it acknowledges.
    fn ask(
        url: &str,
        node: Option<Node>,
        names: &[String],
        version: &str,
        nonce: &str,
    ) -> Self::Request;
    /// The type of its resources.
    fn type_url(&self) -> &str;
    /// What to say in the acknowledgement.
    fn version(&self) -> &str;
    /// What to say in the acknowledgement.
    fn nonce(&self) -> &str;
    /// The names of its resources.
    fn names(&self) -> impl Iterator<Item = &str>;
}

/// `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeltaAnswer {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Wrapped>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Wrapped {
    #[prost(string, tag = "3")]
    name: String,
}

/// `DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SotwAnswer {
    #[prost(string, tag = "1")]
    version_info: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Packed>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// `Any`, whose bytes are a message with its name first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Packed {
    #[prost(message, optional, tag = "2")]
    value: Option<Named>,
}

/// Clusters, assignments, listeners and route configurations alike.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Answer for DeltaAnswer {
    type Request = DeltaDiscoveryRequest;
    const PATH: &'static str =
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    const REPEATS: bool = false;

    fn ask(
        url: &str,
        node: Option<Node>,
        names: &[String],
        _: &str,
        nonce: &str,
    ) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            node,
            type_url: url.to_owned(),
            resource_names_subscribe: names.to_vec(),
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn version(&self) -> &str {
        ""
    }

    fn nonce(&self) -> &str {
        &self.nonce
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(|it| it.name.as_str())
    }
}

impl Answer for SotwAnswer {
    type Request = DiscoveryRequest;
    const PATH: &'static str =
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
    const REPEATS: bool = true;

    fn ask(
        url: &str,
        node: Option<Node>,
        names: &[String],
        version: &str,
        nonce: &str,
    ) -> DiscoveryRequest {
        DiscoveryRequest {
            node,
            type_url: url.to_owned(),
            // Asking for all is said by naming none.
            resource_names: names.iter().filter(|it| *it != "*").cloned().collect(),
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn version(&self) -> &str {
        &self.version_info
    }

    fn nonce(&self) -> &str {
        &self.nonce
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().filter_map(|it| Some(it.value.as_ref()?.name.as_str()))
    }
}

/// Reads answers, and says how long each was.
#[derive(Debug)]
pub(crate) struct Counting<A>(PhantomData<A>);

impl<A> Default for Counting<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A: Answer> Codec for Counting<A> {
    type Encode = A::Request;
    type Decode = (u64, A);
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<A: Answer> Encoder for Counting<A> {
    type Item = A::Request;
    type Error = Status;

    fn encode(&mut self, item: A::Request, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(into).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<A: Answer> Decoder for Counting<A> {
    type Item = (u64, A);
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<(u64, A)>, Status> {
        let bytes = u64::try_from(from.remaining()).unwrap_or(u64::MAX);
        let answer = A::decode(from).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some((bytes, answer)))
    }
}
