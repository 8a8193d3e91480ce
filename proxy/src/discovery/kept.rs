//! The last good configuration on disk: what management servers sent and was taken, for a start without them.
//!
//! One file per directory, which only its owner may read: a line that says what it is, a checksum, and messages. It is
//! written beside the old one, synced, and moved over it. Secrets do not get there, nor anything else with a private
//! key in it: a key that was only ever in memory is not found on a disk by whoever gets hold of that.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message;
use tokio::sync::watch;
use twox_hash::XxHash64;
use xds::envoy::config::core::v3::Node as NodeProto;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use xds::type_url::ResourceType;

use super::file::{Item, Kind};
use super::served::{Served, ServedKey};
use crate::config::HashMap;
use crate::config::bootstrap::Node;
use crate::config::source::Server;
use crate::telemetry::metrics::ConfigCacheStats;

/// The file in the directory.
const NAME: &str = "last-good.xds";
/// The file while it is written.
const UNFINISHED: &str = "last-good.xds.new";
/// Its first line. Another format gets another number.
const HEAD: &[u8] = b"outrigger: last good configuration, format 1\n";
/// What all private keys in PEM have in their first line.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY";
/// How long changes are waited for that belong together.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Everything that was sent, by kind and server.
type Sets = HashMap<ServedKey, Arc<Served>>;

/// Where the configuration is kept.
#[derive(Debug, Clone)]
pub(super) struct Place {
    directory: PathBuf,
    node: NodeProto,
}

/// What is found there.
#[derive(Debug)]
pub(super) struct Found {
    /// When it was written.
    pub(super) at: SystemTime,
    /// In the order in which they are taken.
    pub(super) sets: Vec<Set>,
}

/// The resources of one kind of one server.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) kind: Kind,
    /// Which server, as [`server_mark`] says.
    pub(super) server: String,
    /// The version of exactly these; empty if there were others.
    pub(super) version: String,
    pub(super) resources: Vec<Resource>,
}

/// Why what is found cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is something else.
    #[error("it is no configuration kept by this version")]
    OtherFormat,
    /// Some of it is missing or changed.
    #[error("it is damaged: its checksum does not match")]
    Damaged,
    /// It was written for somebody else.
    #[error("it was kept for node {0:?}, which is another one")]
    OtherNode(String),
}

impl Place {
    /// In `directory`, for this node.
    pub(super) fn new(directory: PathBuf, node: &Node) -> Self {
        let Node { id, cluster, .. } = node;
        let node = NodeProto { id: id.clone(), cluster: cluster.clone(), ..NodeProto::default() };
        Self { directory, node }
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// What was kept last; none if nothing ever was.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn read(&self) -> Result<Option<Found>, Unusable> {
        let path = self.path();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let at = std::fs::metadata(&path)?.modified()?;
        Ok(Some(Found { at, sets: self.decode(&bytes)? }))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<Set>, Unusable> {
        let rest = bytes.strip_prefix(HEAD).ok_or(Unusable::OtherFormat)?;
        let (checksum, mut body) = rest.split_first_chunk().ok_or(Unusable::Damaged)?;
        if u64::from_le_bytes(*checksum) != XxHash64::oneshot(0, body) {
            return Err(Unusable::Damaged);
        }
        let damaged = |_| Unusable::Damaged;
        let node = NodeProto::decode_length_delimited(&mut body).map_err(damaged)?;
        if node != self.node {
            return Err(Unusable::OtherNode(node.id));
        }
        let mut sets = Vec::new();
        while !body.is_empty() {
            let set =
                DeltaDiscoveryResponse::decode_length_delimited(&mut body).map_err(damaged)?;
            let kind = ResourceType::of(&set.type_url).and_then(Kind::of);
            sets.push(Set {
                kind: kind.ok_or(Unusable::OtherFormat)?,
                server: set.nonce,
                version: set.system_version_info,
                resources: set.resources,
            });
        }
        Ok(sets)
    }

    fn encode(&self, sets: &Sets) -> Vec<u8> {
        let mut body = self.node.encode_length_delimited_to_vec();
        let mut kept: Vec<_> = sets.iter().filter(|(key, _)| key.kind != Kind::Secret).collect();
        kept.sort_by_cached_key(|(key, _)| (key.kind.resource_type(), server_mark(&key.server)));
        for (key, set) in kept.into_iter().filter(|(_, set)| set.heard) {
            body.extend(message(key, set).encode_length_delimited_to_vec());
        }
        let checksum = XxHash64::oneshot(0, &body).to_le_bytes();
        [HEAD, &checksum, &body].concat()
    }

    /// Writes `bytes` whole or not at all, whenever the machine stops.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let unfinished = self.directory.join(UNFINISHED);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, self.path())?;
        sync_directory(&self.directory)
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What says which server resources are from, from one start to the next.
pub(super) fn server_mark(server: &Server) -> String {
    match server {
        Server::Ads => "ads".to_owned(),
        Server::Grpc(source) => {
            let clusters: Vec<&str> = source.services.iter().map(|it| &*it.cluster).collect();
            format!("grpc:{}", clusters.join(","))
        }
    }
}

/// What is in use of one set.
fn message(key: &ServedKey, set: &Served) -> DeltaDiscoveryResponse {
    let may_be_kept = |item: &&Arc<Item>| !has_private_key(&item.raw.value);
    let resources: Vec<Resource> = set
        .active
        .iter()
        .filter(|(_, item)| may_be_kept(item))
        .map(|(name, item)| Resource {
            name: name.to_string(),
            version: item.version.clone(),
            resource: Some(item.raw.clone()),
            ..Resource::default()
        })
        .collect();
    let is_all =
        resources.len() == set.active.len() && set.warming.is_empty() && set.refused.is_empty();
    DeltaDiscoveryResponse {
        system_version_info: if is_all { set.version.clone() } else { String::new() },
        resources,
        type_url: key.kind.resource_type().url().to_owned(),
        nonce: server_mark(&key.server),
        ..DeltaDiscoveryResponse::default()
    }
}

fn has_private_key(bytes: &[u8]) -> bool {
    bytes.windows(PRIVATE_KEY.len()).any(|part| part == PRIVATE_KEY)
}

/// Writes what is handed to it, a little later and on another thread.
#[derive(Debug)]
pub(super) struct Keeper(watch::Sender<Sets>);

impl Keeper {
    /// One that keeps in `place`; ends when it is dropped.
    pub(super) fn start(place: Place, stats: Arc<ConfigCacheStats>) -> Self {
        let (sender, sets) = watch::channel(Sets::default());
        tokio::spawn(keep(place, stats, sets));
        Self(sender)
    }

    /// This is what is to be kept from now on.
    pub(super) fn keep(&self, sets: &Sets) {
        self.0.send_replace(sets.clone());
    }
}

async fn keep(place: Place, stats: Arc<ConfigCacheStats>, mut sets: watch::Receiver<Sets>) {
    let mut last = 0;
    while sets.changed().await.is_ok() {
        tokio::time::sleep(DEBOUNCE).await;
        let (place_of_it, sets) = (place.clone(), sets.borrow_and_update().clone());
        let writing = tokio::task::spawn_blocking(move || {
            let bytes = place_of_it.encode(&sets);
            let digest = XxHash64::oneshot(0, &bytes);
            if digest == last { Ok(None) } else { place_of_it.write(&bytes).map(|()| Some(digest)) }
        });
        match writing.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(digest))) => {
                last = digest;
                stats.write_success.inc();
            }
            Ok(Err(error)) => {
                stats.write_failure.inc();
                tracing::warn!(file = %place.path().display(), %error, "the configuration cannot be kept; check --config-cache-dir");
            }
            Err(error) => tracing::error!(%error, "keeping the configuration ended in a panic"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Name as _;
    use prost_types::Any;
    use xds::envoy::config::cluster::v3::Cluster;

    use super::*;
    use crate::config::Name;
    use crate::config::sharing::Parts;
    use crate::discovery::served::{Sent, decode};

    fn place(directory: PathBuf, id: &str) -> Place {
        Place::new(directory, &Node { id: id.to_owned(), ..Node::default() })
    }

    fn clusters(names: &[&str]) -> Sets {
        let item = |name: &str| {
            let cluster = Cluster { name: name.to_owned(), ..Cluster::default() };
            let body = Any { type_url: Cluster::type_url(), value: cluster.encode_to_vec() };
            let sent = Sent { name, version: "1", body: &body };
            decode(Kind::Cluster, sent, None, &mut Parts::default()).unwrap()
        };
        let active: BTreeMap<Name, _> =
            names.iter().map(|name| (Name::from(*name), item(name))).collect();
        let set = Served { version: "7".to_owned(), heard: true, active, ..Served::default() };
        let key = ServedKey { kind: Kind::Cluster, server: Server::Ads };
        Sets::from_iter([(key, Arc::new(set))])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path().join("a/b"), "me");
        assert!(place.read().unwrap().is_none());
        for names in [&["x", "y"][..], &["y"], &[]] {
            place.write(&place.encode(&clusters(names))).unwrap();
            let found = place.read().unwrap().unwrap();
            let [set] = &*found.sets else { panic!("{found:?}") };
            assert_eq!((set.kind, &*set.server, &*set.version), (Kind::Cluster, "ads", "7"));
            let found: Vec<_> = set.resources.iter().map(|it| &*it.name).collect();
            assert_eq!(found, names);
        }
    }

    #[test]
    fn only_the_node_itself_takes_it() {
        let bytes = place(PathBuf::new(), "me").encode(&clusters(&["x"]));
        let refused = place(PathBuf::new(), "you").decode(&bytes).unwrap_err();
        assert_eq!(refused.to_string(), "it was kept for node \"me\", which is another one");
    }

    proptest! {
        #[test]
        fn damage_is_noticed(at in 0_usize..10_000, change in 1_u8.., cut in any::<bool>()) {
            let place = place(PathBuf::new(), "me");
            let mut bytes = place.encode(&clusters(&["x", "y"]));
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= change }
            prop_assert!(place.decode(&bytes).is_err());
        }
    }
}
