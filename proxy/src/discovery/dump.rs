//! What `/config_dump` shows: the messages in use with their versions and times, and why newer ones are not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use prost::{Message, Name};
use prost_types::{Any, Timestamp};
use serde_json::Value as Json;
use xds::envoy::admin::v3::clusters_config_dump::{DynamicCluster, StaticCluster};
use xds::envoy::admin::v3::endpoints_config_dump::{DynamicEndpointConfig, StaticEndpointConfig};
use xds::envoy::admin::v3::listeners_config_dump::{
    DynamicListener, DynamicListenerState, StaticListener,
};
use xds::envoy::admin::v3::routes_config_dump::{DynamicRouteConfig, StaticRouteConfig};
use xds::envoy::admin::v3::secrets_config_dump::{DynamicSecret, StaticSecret};
use xds::envoy::admin::v3::{
    BootstrapConfigDump, ClientResourceStatus, ClustersConfigDump, EndpointsConfigDump, ListenersConfigDump,
    RoutesConfigDump, SecretsConfigDump, UpdateFailureState,
};
use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use xds::envoy::config::listener::v3::filter::ConfigType;
use xds::envoy::config::listener::v3::{FilterChain, Listener};
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::assemble::state::State;
use super::assemble::{Refusal, Source};
use super::file::{FileKey, Item, Kind};
use super::served::Served;

const SCOPED_ROUTES: &str = "type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump";

/// The current configuration as messages, for the admin API. Written by discovery alone.
#[derive(Debug, Default)]
pub struct ConfigDump(RwLock<Option<Contents>>);

#[derive(Debug)]
struct Contents {
    state: State,
    refused: BTreeMap<Source, Refusal>,
}

/// A source whose present content is not in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The source: `bootstrap`, or the kind and path of a file.
    pub source: String,
    /// When it was refused.
    pub at: SystemTime,
    /// Why, each with file, line, column and field path.
    pub errors: Vec<String>,
}

impl ConfigDump {
    /// The `configs` of Envoy's `/config_dump`, in its order; endpoints only if asked for
    /// (`?include_eds`). Private keys are redacted.
    pub fn configs(&self, include_eds: bool) -> Vec<Json> {
        let contents = self.0.read();
        let Some(Contents { state, refused }) = &*contents else { return Vec::new() };
        let shown = Shown { state, refused, bootstrap: state.bootstrap.proto() };
        let mut configs = vec![packed(&shown.bootstrap()), packed(&shown.clusters())];
        if include_eds {
            configs.push(packed(&shown.endpoints()));
        }
        configs.push(packed(&shown.listeners()));
        // Scoped routes are not supported; Envoy shows the empty message.
        configs.push(Any { type_url: SCOPED_ROUTES.to_owned(), value: Vec::new() });
        configs.push(packed(&shown.routes()));
        configs.push(packed(&shown.secrets()));
        configs.iter().map(xds::json::any_to_json).collect()
    }

    /// Names of the clusters that the bootstrap declares.
    pub fn static_clusters(&self) -> HashSet<String> {
        let contents = self.0.read();
        let fixed = contents.iter().flat_map(|it| &it.state.bootstrap.config.clusters);
        fixed.map(|cluster| cluster.name.to_string()).collect()
    }

    /// The sources whose present content is not in use.
    pub fn refused(&self) -> Vec<Refused> {
        let contents = self.0.read();
        let refused = contents.iter().flat_map(|contents| &contents.refused);
        refused
            .map(|(source, refusal)| Refused {
                source: source.to_string(),
                at: refusal.at,
                errors: refusal.errors.iter().map(ToString::to_string).collect(),
            })
            .collect()
    }

    pub(super) fn update(&self, state: &State, refused: &BTreeMap<Source, Refusal>) {
        *self.0.write() = Some(Contents { state: state.clone(), refused: refused.clone() });
    }
}

/// What is being shown.
struct Shown<'a> {
    state: &'a State,
    refused: &'a BTreeMap<Source, Refusal>,
    bootstrap: Bootstrap,
}

impl Shown<'_> {
    fn updated(&self) -> Option<Timestamp> {
        Some(self.state.bootstrap.updated.into())
    }

    fn fixed<'a, T>(&'a self, list: impl FnOnce(&'a StaticResources) -> &'a Vec<T>) -> &'a [T] {
        self.bootstrap.static_resources.as_ref().map_or(&[], |it| list(it))
    }

    fn bootstrap(&self) -> BootstrapConfigDump {
        let bootstrap = Some(self.bootstrap.clone());
        BootstrapConfigDump { bootstrap, last_updated: self.updated() }
    }

    fn clusters(&self) -> ClustersConfigDump {
        let fixed = self
            .fixed(|it| &it.clusters)
            .iter()
            .map(packed)
            .map(|cluster| StaticCluster { cluster: Some(cluster), last_updated: self.updated() });
        let shown = |(_, item): (&str, &Item)| DynamicCluster {
            version_info: item.version.clone(),
            cluster: Some(item.raw.clone()),
            last_updated: Some(item.updated.into()),
            client_status: status(item),
            ..DynamicCluster::default()
        };
        let active = self.items(Kind::Cluster).map(shown);
        let warming = self.warming(Kind::Cluster).map(shown);
        let failed = self.failures(Kind::Cluster).map(|(_, failure)| DynamicCluster {
            error_state: Some(failure),
            ..DynamicCluster::default()
        });
        ClustersConfigDump {
            version_info: self.version(Kind::Cluster),
            static_clusters: fixed.collect(),
            dynamic_active_clusters: active.collect(),
            dynamic_warming_clusters: warming.chain(failed).collect(),
        }
    }

    fn endpoints(&self) -> EndpointsConfigDump {
        let fixed =
            self.fixed(|it| &it.clusters).iter().filter_map(|it| it.load_assignment.as_ref());
        let fixed = fixed.map(|assignment| StaticEndpointConfig {
            endpoint_config: Some(packed(assignment)),
            last_updated: self.updated(),
        });
        let found = self.items(Kind::Endpoints).map(|(_, item)| DynamicEndpointConfig {
            version_info: item.version.clone(),
            endpoint_config: Some(item.raw.clone()),
            last_updated: Some(item.updated.into()),
            client_status: status(item),
            ..DynamicEndpointConfig::default()
        });
        let failed = self.failures(Kind::Endpoints).map(|(_, failure)| DynamicEndpointConfig {
            error_state: Some(failure),
            ..DynamicEndpointConfig::default()
        });
        EndpointsConfigDump {
            static_endpoint_configs: fixed.collect(),
            dynamic_endpoint_configs: found.chain(failed).collect(),
        }
    }

    fn listeners(&self) -> ListenersConfigDump {
        let fixed = self.fixed(|it| &it.listeners).iter().map(packed).map(|listener| {
            StaticListener { listener: Some(listener), last_updated: self.updated() }
        });
        let state = |item: &Item| DynamicListenerState {
            version_info: item.version.clone(),
            listener: Some(item.raw.clone()),
            last_updated: Some(item.updated.into()),
        };
        let mut dynamic: BTreeMap<String, DynamicListener> = BTreeMap::new();
        let of = |dynamic: &mut BTreeMap<String, DynamicListener>, name: &str| {
            let new = || DynamicListener { name: name.to_owned(), ..DynamicListener::default() };
            dynamic.remove(name).unwrap_or_else(new)
        };
        for (name, item) in self.items(Kind::Listener) {
            let listener = of(&mut dynamic, name);
            let (active_state, client_status) = (Some(state(item)), status(item));
            let listener = DynamicListener { active_state, client_status, ..listener };
            dynamic.insert(name.to_owned(), listener);
        }
        for (name, item) in self.warming(Kind::Listener) {
            let listener = of(&mut dynamic, name);
            let warming_state = Some(state(item));
            dynamic.insert(name.to_owned(), DynamicListener { warming_state, ..listener });
        }
        for (name, failure) in self.failures(Kind::Listener) {
            let listener = of(&mut dynamic, &name);
            let error_state = Some(failure);
            dynamic.insert(name, DynamicListener { error_state, ..listener });
        }
        ListenersConfigDump {
            version_info: self.version(Kind::Listener),
            static_listeners: fixed.collect(),
            dynamic_listeners: dynamic.into_values().collect(),
        }
    }

    fn routes(&self) -> RoutesConfigDump {
        let mut inline: Vec<StaticRouteConfig> = Vec::new();
        for listener in self.fixed(|it| &it.listeners) {
            inline.extend(inline_routes(listener).map(|routes| StaticRouteConfig {
                route_config: Some(packed(&routes)),
                last_updated: self.updated(),
            }));
        }
        for (_, item) in self.items(Kind::Listener) {
            let Ok(listener) = Listener::decode(item.raw.value.as_slice()) else { continue };
            inline.extend(inline_routes(&listener).map(|routes| StaticRouteConfig {
                route_config: Some(packed(&routes)),
                last_updated: Some(item.updated.into()),
            }));
        }
        let found = self.items(Kind::Routes).map(|(_, item)| DynamicRouteConfig {
            version_info: item.version.clone(),
            route_config: Some(item.raw.clone()),
            last_updated: Some(item.updated.into()),
            client_status: status(item),
            ..DynamicRouteConfig::default()
        });
        let failed = self.failures(Kind::Routes).map(|(_, failure)| DynamicRouteConfig {
            error_state: Some(failure),
            ..DynamicRouteConfig::default()
        });
        RoutesConfigDump {
            static_route_configs: inline,
            dynamic_route_configs: found.chain(failed).collect(),
        }
    }

    fn secrets(&self) -> SecretsConfigDump {
        let fixed = self.fixed(|it| &it.secrets).iter().map(|secret| StaticSecret {
            name: secret.name.clone(),
            last_updated: self.updated(),
            secret: Some(packed(secret)),
        });
        let found = self.items(Kind::Secret).map(|(name, item)| DynamicSecret {
            name: name.to_owned(),
            version_info: item.version.clone(),
            last_updated: Some(item.updated.into()),
            secret: Some(item.raw.clone()),
            ..DynamicSecret::default()
        });
        let failed = self.failures(Kind::Secret).map(|(name, failure)| DynamicSecret {
            name,
            error_state: Some(failure),
            ..DynamicSecret::default()
        });
        SecretsConfigDump {
            static_secrets: fixed.collect(),
            dynamic_active_secrets: found.collect(),
            dynamic_warming_secrets: failed.collect(),
        }
    }

    fn items(&self, kind: Kind) -> impl Iterator<Item = (&str, &Item)> {
        let files = self.state.files.iter().filter(move |(key, _)| key.kind == kind);
        let of_files = files.flat_map(|(_, file)| &file.items).map(|(name, item)| (&**name, item));
        let served = self.served(kind).flat_map(|set| &set.active);
        of_files.chain(served.map(|(name, item)| (&**name, &**item)))
    }

    /// What waits to be used.
    fn warming(&self, kind: Kind) -> impl Iterator<Item = (&str, &Item)> {
        let served = self.served(kind).flat_map(|set| &set.warming);
        served.map(|(name, item)| (&**name, &**item))
    }

    fn served(&self, kind: Kind) -> impl Iterator<Item = &Arc<Served>> {
        self.state.served.iter().filter(move |(key, _)| key.kind == kind).map(|(_, set)| set)
    }

    fn version(&self, kind: Kind) -> String {
        let file = self.state.files.iter().find(|(key, _)| key.kind == kind);
        let file = file.map(|(_, file)| file.version.clone());
        file.or_else(|| self.served(kind).next().map(|set| set.version.clone())).unwrap_or_default()
    }

    /// What was refused, by name; a file as a whole has none.
    fn failures(&self, wanted: Kind) -> impl Iterator<Item = (String, UpdateFailureState)> {
        let refused = self.refused.iter().filter(move |(source, _)| {
            matches!(source, Source::File(FileKey { kind, .. }) if *kind == wanted)
        });
        let files = refused.map(|(_, refusal)| {
            let errors: Vec<String> = refusal.errors.iter().map(ToString::to_string).collect();
            let state = UpdateFailureState {
                last_update_attempt: Some(refusal.at.into()),
                details: errors.join("\n"),
                ..UpdateFailureState::default()
            };
            (String::new(), state)
        });
        let served = self.served(wanted).flat_map(|set| &set.refused).map(|(name, refused)| {
            let state = UpdateFailureState {
                failed_configuration: refused.raw.clone(),
                last_update_attempt: Some(refused.at.into()),
                details: refused.reason.clone(),
                version_info: refused.version.clone(),
            };
            (name.to_string(), state)
        });
        files.chain(served)
    }
}

/// What is from a former run is asked for, and nobody has sent it yet.
fn status(item: &Item) -> i32 {
    let status = match item.from_disk {
        true => ClientResourceStatus::Requested,
        false => ClientResourceStatus::Unknown,
    };
    status.into()
}

fn packed<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn inline_routes(listener: &Listener) -> impl Iterator<Item = RouteConfiguration> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.flat_map(|chain: &FilterChain| &chain.filters).filter_map(|filter| {
        let ConfigType::TypedConfig(any) = filter.config_type.as_ref()?;
        match any.to_msg::<HttpConnectionManager>().ok()?.route_specifier? {
            RouteSpecifier::RouteConfig(routes) => Some(routes),
            _ => None,
        }
    })
}
