//! One resource as it travels: what it is called, its version, its time to live, and how it is packed.

use std::time::Duration;

use prost::{Message, Name};
use prost_types::Any;
use twox_hash::XxHash64;

use crate::envoy::service::discovery::v3::Resource as Wrapped;
use crate::type_url::ResourceType;

/// A resource a response offers; nothing inside is checked yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offered {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) version: String,
    pub(crate) ttl: Option<Duration>,
    /// None: this is a heartbeat, or says that an alias stands for nothing.
    pub(crate) body: Option<Any>,
}

/// A resource that cannot be offered, as it is packed wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Unless it cannot be told.
    pub(crate) name: Option<String>,
    pub(crate) reason: String,
}

/// The first field of every kind of resource.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// What a resource calls itself; none if these bytes are no such resource, or it has no name.
pub fn name(body: &Any) -> Option<String> {
    let Named { name } = Named::decode(body.value.as_slice()).ok()?;
    (!name.is_empty()).then_some(name)
}

/// Tells one content from another; the same in every process and release.
pub(crate) fn digest(body: &Any) -> u64 {
    XxHash64::oneshot(0, &body.value)
}

impl Offered {
    /// From a state-of-the-world response of this `version`: the resource itself, or wrapped.
    pub(crate) fn packed(kind: ResourceType, any: Any, version: &str) -> Result<Self, Malformed> {
        let fail = |name, reason| Err(Malformed { name, reason });
        if any.type_url == Wrapped::type_url() {
            return match Wrapped::decode(any.value.as_slice()) {
                Ok(wrapped) => {
                    let mut offered = Self::wrapped(kind, wrapped)?;
                    if offered.version.is_empty() {
                        version.clone_into(&mut offered.version);
                    }
                    Ok(offered)
                }
                Err(error) => fail(None, format!("no {}: {error}", Wrapped::full_name())),
            };
        }
        if any.type_url != kind.url() {
            return fail(None, wrong_type(kind, &any));
        }
        let Some(name) = name(&any) else { return fail(None, nameless(kind)) };
        let version = version.to_owned();
        Ok(Self { name, aliases: Vec::new(), version, ttl: None, body: Some(any) })
    }

    /// From an incremental response.
    pub(crate) fn wrapped(kind: ResourceType, wrapped: Wrapped) -> Result<Self, Malformed> {
        // Variants of a resource are not asked for, so a name is enough.
        let Wrapped {
            name: outer,
            resource_name,
            aliases,
            version,
            resource: body,
            ttl,
            cache_control: _,
            metadata: _,
        } = wrapped;
        let named = [outer, resource_name.map(|variant| variant.name).unwrap_or_default()];
        let known = named.into_iter().find(|name| !name.is_empty());
        let Some(name) = known.or_else(|| body.as_ref().and_then(name)) else {
            return Err(Malformed { name: None, reason: nameless(kind) });
        };
        if let Some(body) = body.as_ref().filter(|body| body.type_url != kind.url()) {
            return Err(Malformed { name: Some(name), reason: wrong_type(kind, body) });
        }
        let ttl = match ttl.map(Duration::try_from).transpose() {
            Ok(ttl) => ttl,
            Err(error) => {
                return Err(Malformed { name: Some(name), reason: format!("ttl: {error}") });
            }
        };
        Ok(Self { name, aliases, version, ttl, body })
    }
}

fn wrong_type(kind: ResourceType, any: &Any) -> String {
    format!("type URL {} does not match the message-wide type URL {}", any.type_url, kind.url())
}

fn nameless(kind: ResourceType) -> String {
    format!("a resource of {kind} without a name, or not of its type")
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::Any;

    use super::{Offered, name};
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::type_url::ResourceType;

    #[test]
    fn a_resource_has_its_name_whether_wrapped_or_not() {
        let cluster = Cluster { name: "one".into(), ..Cluster::default() };
        let any =
            Any { type_url: ResourceType::Cluster.url().into(), value: cluster.encode_to_vec() };
        let plain = Offered::packed(ResourceType::Cluster, any.clone(), "1").unwrap();
        let wrapped = super::Wrapped { resource: Some(any.clone()), ..Default::default() };
        let wrapped = Any::from_msg(&wrapped).unwrap();
        assert_eq!(Offered::packed(ResourceType::Cluster, wrapped, "1").unwrap(), plain);
        assert_eq!((&*plain.name, &*plain.version), ("one", "1"));
        assert!(Offered::packed(ResourceType::Listener, any, "1").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(value: Vec<u8>, wrapped: bool) {
            let url = if wrapped { "type.googleapis.com/envoy.service.discovery.v3.Resource" }
                else { ResourceType::Cluster.url() };
            let any = Any { type_url: url.into(), value };
            let _ = name(&any);
            let _ = Offered::packed(ResourceType::Cluster, any, "");
        }
    }
}
