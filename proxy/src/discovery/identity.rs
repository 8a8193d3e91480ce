//! Who this proxy is, as it tells services.

use xds::envoy::config::core::v3::node::UserAgentVersionType;
use xds::envoy::config::core::v3::{Locality, Node as Proto};

use crate::config::bootstrap::Node;
use crate::net::structure::structure;

/// The message of `node`.
pub fn identity(node: &Node) -> Proto {
    let Node { id, cluster, locality: (region, zone, sub_zone), metadata } = node;
    let (region, zone, sub_zone) = (region.clone(), zone.clone(), sub_zone.clone());
    Proto {
        id: id.clone(),
        cluster: cluster.clone(),
        metadata: metadata.as_object().map(structure),
        locality: Some(Locality { region, zone, sub_zone }),
        user_agent_name: "outrigger".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        client_features: Vec::new(),
    }
}
