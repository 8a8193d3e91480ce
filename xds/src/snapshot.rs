//! What a server has for a node: resources by kind and name. Versions are hashes of content, so what is equal has the
//! same version in every process, and is not sent again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use twox_hash::XxHash64;

use crate::envoy::config::cluster::v3::{Cluster, cluster};
use crate::envoy::config::core::v3::config_source::ConfigSourceSpecifier::Ads;
use crate::resource;
use crate::type_url::ResourceType;

/// A resource as it is served.
#[derive(Debug, PartialEq)]
pub struct Entry {
    kind: ResourceType,
    name: Arc<str>,
    version: Arc<str>,
    body: Any,
    aliases: Vec<String>,
    ttl: Option<Duration>,
    endpoints: Option<String>,
}

/// Why something is no [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    /// Its type is none of [`ResourceType`].
    #[error("{0} is not a type of resources")]
    Type(String),
    /// It has no name, or is not of the type it claims.
    #[error("a {0} without a name")]
    Name(&'static str),
}

impl Entry {
    /// A resource that any client may have, forever.
    ///
    /// # Errors
    /// If it is of a type that is not served, or has no name.
    pub fn new(body: Any) -> Result<Self, NoEntry> {
        let Some(kind) = ResourceType::of(&body.type_url) else {
            return Err(NoEntry::Type(body.type_url));
        };
        let name = resource::name(&body).ok_or(NoEntry::Name(kind.url()))?.into();
        let endpoints = if kind == ResourceType::Cluster { endpoints_of(&body) } else { None };
        let version = hash(&[&body.value]);
        Ok(Self { kind, name, version, body, aliases: Vec::new(), ttl: None, endpoints })
    }

    /// The same, to be forgotten by a client that hears no more of it for so long.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        let version = hash(&[self.version.as_bytes(), &ttl.as_nanos().to_le_bytes()]);
        Self { version, ttl: Some(ttl), ..self }
    }

    /// The same, which can also be subscribed to by other names.
    #[must_use]
    pub fn with_aliases(self, aliases: Vec<String>) -> Self {
        let version = hash(&[self.version.as_bytes(), aliases.join("\0").as_bytes()]);
        Self { version, aliases, ..self }
    }

    /// Its kind.
    pub fn kind(&self) -> ResourceType {
        self.kind
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The resource.
    pub fn body(&self) -> &Any {
        &self.body
    }

    /// Its other names.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// How long it lives unless it is heard of again.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Of a cluster whose endpoints are discovered: their name.
    pub(crate) fn endpoints(&self) -> Option<&str> {
        self.endpoints.as_deref()
    }
}

/// What the endpoints of a cluster are called, if they come over the same stream.
fn endpoints_of(body: &Any) -> Option<String> {
    let cluster = Cluster::decode(body.value.as_slice()).ok()?;
    let eds = cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into());
    if cluster.cluster_discovery_type != Some(eds) {
        return None;
    }
    let cluster::EdsClusterConfig { eds_config, service_name } = cluster.eds_cluster_config?;
    let aggregated = matches!(eds_config?.config_source_specifier?, Ads(_));
    let name = if service_name.is_empty() { cluster.name } else { service_name };
    aggregated.then_some(name)
}

/// All resources of one kind.
#[derive(Debug, Default, PartialEq)]
pub struct Set {
    version: Arc<str>,
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    aliases: BTreeMap<String, Arc<str>>,
}

impl Set {
    fn new(entries: BTreeMap<Arc<str>, Arc<Entry>>) -> Self {
        let parts = entries.values().flat_map(|entry| [&*entry.name, "\0", &*entry.version]);
        let parts: Vec<&[u8]> = parts.map(str::as_bytes).collect();
        let version = hash(&parts);
        let alias = |entry: &Arc<Entry>| {
            let name = Arc::clone(&entry.name);
            entry.aliases.clone().into_iter().map(move |alias| (alias, Arc::clone(&name)))
        };
        let aliases = entries.values().flat_map(alias).collect();
        Self { version, entries, aliases }
    }

    /// The version of all of them together.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// A resource by its name or an alias.
    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name).or_else(|| self.entries.get(self.aliases.get(name)?))
    }

    /// All of them, by name.
    pub fn entries(&self) -> &BTreeMap<Arc<str>, Arc<Entry>> {
        &self.entries
    }
}

/// Everything a server has for a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    sets: BTreeMap<ResourceType, Arc<Set>>,
}

impl Snapshot {
    /// The resources of a kind; none if there are none.
    pub fn set(&self, kind: ResourceType) -> Option<&Arc<Set>> {
        self.sets.get(&kind)
    }
}

impl Snapshot {
    /// The same with these resources, in place of all others of their kinds.
    #[must_use]
    pub fn with(&self, entries: impl IntoIterator<Item = Arc<Entry>>) -> Self {
        let more: Self = entries.into_iter().collect();
        let mut sets = self.sets.clone();
        sets.extend(more.sets);
        Self { sets }
    }
}

impl FromIterator<Arc<Entry>> for Snapshot {
    /// Of two entries with one name, the last counts.
    fn from_iter<I: IntoIterator<Item = Arc<Entry>>>(entries: I) -> Self {
        let mut kinds: BTreeMap<ResourceType, BTreeMap<Arc<str>, Arc<Entry>>> = BTreeMap::new();
        for entry in entries {
            kinds.entry(entry.kind).or_default().insert(Arc::clone(&entry.name), entry);
        }
        let set = |(kind, entries)| (kind, Arc::new(Set::new(entries)));
        Self { sets: kinds.into_iter().map(set).collect() }
    }
}

/// The snapshots of all nodes. What several nodes have in common is kept once.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: HashMap<String, Arc<Snapshot>>,
    shared: HashMap<(ResourceType, Arc<str>), Weak<Set>>,
}

impl Cache {
    /// Replaces what a node has. Returns the kinds in which something has changed: none of them means that there is
    /// nothing to send.
    pub fn set(&mut self, node: &str, snapshot: Snapshot) -> Vec<ResourceType> {
        let sets = snapshot.sets.into_iter().map(|(kind, set)| (kind, self.share(kind, set)));
        let snapshot = Snapshot { sets: sets.collect() };
        let old = self.nodes.insert(node.to_owned(), Arc::new(snapshot.clone()));
        let old = old.unwrap_or_default();
        let version = |of: &Snapshot, kind| of.set(kind).map(|set| Arc::clone(set.version()));
        let differs = |kind: &ResourceType| version(&old, *kind) != version(&snapshot, *kind);
        let changed = ResourceType::ALL.into_iter().filter(differs).collect();
        drop(old);
        self.forget_unused();
        changed
    }

    /// What a node has.
    pub fn get(&self, node: &str) -> Option<&Arc<Snapshot>> {
        self.nodes.get(node)
    }

    /// Forgets a node.
    pub fn remove(&mut self, node: &str) {
        self.nodes.remove(node);
        self.forget_unused();
    }

    fn share(&mut self, kind: ResourceType, set: Arc<Set>) -> Arc<Set> {
        let known = self.shared.entry((kind, Arc::clone(set.version()))).or_default();
        known.upgrade().unwrap_or_else(|| {
            *known = Arc::downgrade(&set);
            set
        })
    }

    /// Every so often: each look costs a walk over all sets.
    fn forget_unused(&mut self) {
        if self.shared.len() > 2 * self.nodes.len() * ResourceType::ALL.len() {
            self.shared.retain(|_, set| set.strong_count() > 0);
        }
    }
}

/// A hash as it is written in a version.
fn hash(parts: &[&[u8]]) -> Arc<str> {
    use std::hash::Hasher;
    let mut hasher = XxHash64::with_seed(0);
    for part in parts {
        hasher.write(part);
    }
    format!("{:016x}", hasher.finish()).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use prost::{Message, Name};
    use prost_types::Any;

    use super::{Cache, Entry, NoEntry, Snapshot};
    use crate::envoy::config::cluster::v3::{Cluster, cluster};
    use crate::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
    use crate::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource};
    use crate::envoy::config::listener::v3::Listener;
    use crate::type_url::ResourceType;

    fn entry<M: Message + Name>(message: &M) -> Arc<Entry> {
        Arc::new(Entry::new(Any::from_msg(message).unwrap()).unwrap())
    }

    fn listener(name: &str, prefix: &str) -> Arc<Entry> {
        let (name, stat_prefix) = (name.to_owned(), prefix.to_owned());
        entry(&Listener { name, stat_prefix, ..Listener::default() })
    }

    #[test]
    fn equal_content_has_equal_versions_and_is_kept_once() {
        let mut cache = Cache::default();
        let snapshot =
            |prefix: &str| Snapshot::from_iter([listener("a", prefix), listener("b", "")]);
        assert_eq!(cache.set("one", snapshot("x")), [ResourceType::Listener]);
        assert_eq!(cache.set("two", snapshot("x")), [ResourceType::Listener]);
        assert!(cache.set("one", snapshot("x")).is_empty());
        let set = |node: &str| cache.get(node).unwrap().set(ResourceType::Listener).unwrap();
        assert!(Arc::ptr_eq(set("one"), set("two")));
        assert_eq!(cache.set("one", snapshot("y")), [ResourceType::Listener]);
        assert_eq!(cache.set("one", Snapshot::default()), [ResourceType::Listener]);
        cache.remove("one");
        assert!(cache.get("one").is_none());
    }

    #[test]
    fn sets_that_nobody_has_are_forgotten() {
        let mut cache = Cache::default();
        for number in 0..100 {
            cache.set("one", Snapshot::from_iter([listener("a", &number.to_string())]));
        }
        assert!(cache.shared.len() < 20, "{}", cache.shared.len());
    }

    #[test]
    fn the_version_covers_time_to_live_and_aliases() {
        let plain = || Entry::new(listener("a", "").body().clone()).unwrap();
        let versions = [
            plain(),
            plain().with_ttl(Duration::from_secs(1)),
            plain().with_ttl(Duration::from_secs(2)),
            plain().with_aliases(vec!["b".into()]),
        ]
        .map(|entry| entry.version().to_string());
        let distinct: std::collections::BTreeSet<_> = versions.iter().collect();
        assert_eq!(distinct.len(), 4, "{versions:?}");
    }

    #[test]
    fn a_cluster_says_what_its_endpoints_are_called() {
        let eds = cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into());
        let aggregated = ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
            ..ConfigSource::default()
        };
        let config = |eds_config, service_name: &str| {
            let service_name = service_name.to_owned();
            Some(cluster::EdsClusterConfig { eds_config, service_name })
        };
        let mut message = Cluster { name: "c".into(), ..Cluster::default() };
        assert_eq!(entry(&message).endpoints(), None);
        message.cluster_discovery_type = Some(eds);
        message.eds_cluster_config = config(Some(aggregated.clone()), "");
        assert_eq!(entry(&message).endpoints(), Some("c"));
        message.eds_cluster_config = config(Some(aggregated), "s");
        assert_eq!(entry(&message).endpoints(), Some("s"));
        message.eds_cluster_config = config(Some(ConfigSource::default()), "s");
        assert_eq!(entry(&message).endpoints(), None, "another server's");
    }

    #[test]
    fn what_has_no_type_or_no_name_is_refused() {
        let other = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
        assert_eq!(Entry::new(other), Err(NoEntry::Type("type.googleapis.com/x.Y".into())));
        let nameless = Any::from_msg(&Cluster::default()).unwrap();
        assert_eq!(Entry::new(nameless), Err(NoEntry::Name(ResourceType::Cluster.url())));
    }
}
