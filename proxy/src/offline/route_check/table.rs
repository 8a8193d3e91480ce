//! The route table under test, once for each runtime key that a test turns on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use xds::envoy::config::core::v3::RuntimeFractionalPercent;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::r#type::v3::FractionalPercent;
use xds::yaml::Document;

use super::refused;
use crate::config::route::RouteConfig;
use crate::discovery::decode;
use crate::route::RouteTable;

/// The table under test.
pub(super) struct Tables {
    document: Document,
    proto: RouteConfiguration,
    config: Arc<RouteConfig>,
    compiled: BTreeMap<String, RouteTable>,
}

impl Tables {
    /// Reads the table.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its places.
    pub(super) fn read(document: Document) -> Result<Self> {
        let proto: RouteConfiguration = document.read().map_err(|errors| refused(&errors))?;
        let config = Arc::new(decoded(&document, &proto)?);
        Ok(Self { document, proto, config, compiled: BTreeMap::new() })
    }

    /// The table as configured.
    pub(super) fn config(&self) -> &RouteConfig {
        &self.config
    }

    /// The table as the protobuf that was read, for what the proxy itself does not look at.
    pub(super) fn proto(&self) -> &RouteConfiguration {
        &self.proto
    }

    /// The table when `key` is the only runtime key that is on; empty for none.
    ///
    /// As in Envoy's tool, a route with a `runtime_fraction` is off unless its key is on, and then a
    /// numerator of 0 counts as 1, so that random value 0 takes the route.
    ///
    /// # Errors
    /// What only compiling finds wrong with the table.
    pub(super) fn with_runtime_key(&mut self, key: &str) -> Result<&RouteTable> {
        match self.compiled.entry(key.to_owned()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let mut proto = self.proto.clone();
                for host in &mut proto.virtual_hosts {
                    let matches = host.routes.iter_mut().flat_map(|route| &mut route.r#match);
                    matches.flat_map(|it| &mut it.runtime_fraction).for_each(|it| set(it, key));
                }
                let config = Arc::new(decoded(&self.document, &proto)?);
                let table = RouteTable::compile(config)
                    .map_err(|error| anyhow!(self.document.error_at(error.path, error.reason)))?;
                Ok(new.insert(table))
            }
        }
    }
}

fn decoded(document: &Document, proto: &RouteConfiguration) -> Result<RouteConfig> {
    decode::route_config(proto).map_err(|errors| {
        let located = errors.into_iter().map(|it| document.error_at(it.path, it.reason));
        refused(&located.collect::<Vec<_>>())
    })
}

fn set(fraction: &mut RuntimeFractionalPercent, on: &str) {
    let is_on = !on.is_empty() && fraction.runtime_key == on;
    let share = fraction.default_value.get_or_insert_with(FractionalPercent::default);
    share.numerator = if is_on { share.numerator.max(1) } else { 0 };
}
