//! What the operator is told in the log about a change.

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::yaml::Error as Located;

use crate::discovery::file::bootstrap::BootstrapFile;
use crate::discovery::file::{Resource, ResourceFile};

/// Why something is not in use.
pub(super) fn errors(what: &str, errors: &[Located]) {
    for error in errors {
        tracing::error!("{what}: {error}");
    }
}

/// Names what a changed bootstrap says that only a restart can bring about.
pub(super) fn fixed_parts(old: &BootstrapFile, new: &BootstrapFile) {
    let (old, new) = (old.proto(), new.proto());
    for (part, changed) in [
        ("node", old.node != new.node),
        ("cluster_manager.local_cluster_name", local_cluster(&old) != local_cluster(&new)),
        ("admin", old.admin != new.admin),
        ("stats_config", old.stats_config != new.stats_config),
        ("layered_runtime", old.layered_runtime != new.layered_runtime),
        ("overload_manager", old.overload_manager != new.overload_manager),
    ] {
        if changed {
            tracing::warn!("the bootstrap's {part} changed: it takes effect after a restart");
        }
    }
}

fn local_cluster(bootstrap: &Bootstrap) -> Option<&str> {
    bootstrap.cluster_manager.as_ref().map(|it| it.local_cluster_name.as_str())
}

/// Names discovered listeners and clusters that are not used because static ones have their names.
pub(super) fn shadowed(bootstrap: &BootstrapFile, file: &ResourceFile) {
    let config = &bootstrap.config;
    for (name, item) in &file.items {
        let fixed = match &item.resource {
            Resource::Listener(_) => config.listeners.iter().any(|it| it.name == *name),
            Resource::Cluster(_) => config.clusters.iter().any(|it| it.name == *name),
            Resource::Routes(_)
            | Resource::Endpoints(_)
            | Resource::Secret(_)
            | Resource::Extension(_) => false,
        };
        if fixed {
            tracing::warn!("discovered {name} is not used: a static resource has the same name");
        }
    }
}
