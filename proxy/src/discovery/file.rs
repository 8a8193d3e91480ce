//! Reads files of resources: a DiscoveryResponse as YAML, JSON or protobuf, decoded item by item.

pub(super) mod bootstrap;
pub(super) mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use prost::{Message, Name as _};
use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds::envoy::service::discovery::v3::{DiscoveryResponse, Resource as Wrapped};
use xds::yaml::{Document, Error as Located};

use super::decode;
use crate::config::sharing::Parts;
use crate::config::{self, Invalid, Name};

/// Most errors reported of one file: locating each costs a pass over the text.
const MAX_REPORTED: usize = 20;

/// Why a `.pb_text` file is refused.
const NO_TEXT_FORMAT: &str = "protobuf's text format is not supported; use YAML or JSON";

/// What a file of resources holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Secret,
    Cluster,
    Endpoints,
    Listener,
    Extension,
    Routes,
}

impl Kind {
    /// The message each resource is packed as.
    pub(super) fn message(self) -> String {
        match self {
            Self::Secret => Secret::full_name(),
            Self::Cluster => Cluster::full_name(),
            Self::Endpoints => ClusterLoadAssignment::full_name(),
            Self::Listener => Listener::full_name(),
            Self::Extension => TypedExtensionConfig::full_name(),
            Self::Routes => RouteConfiguration::full_name(),
        }
    }

    /// Whether a file holds every resource there is, so that one left out is removed. For the other
    /// kinds a resource left out keeps its last version, as on an xDS stream.
    pub(super) fn is_full_set(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "SDS",
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Extension => "ECDS",
            Self::Routes => "RDS",
        })
    }
}

/// A file of resources of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey {
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} file {}", self.kind, self.path.display())
    }
}

/// The bytes of a file, and a digest to tell one version from the next.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: u64,
}

/// Reads a file as it is now.
pub(super) fn read(path: &Path) -> std::io::Result<Content> {
    let bytes = std::fs::read(path)?;
    Ok(Content { digest: digest(&bytes), bytes })
}

/// Tells one version of a file from the next.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The resources of one file, decoded.
#[derive(Debug)]
pub(super) struct ResourceFile {
    pub(super) digest: u64,
    pub(super) version: String,
    pub(super) items: BTreeMap<Name, Item>,
}

/// One resource with all that is told about it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) version: String,
    pub(super) updated: SystemTime,
    pub(super) raw: Any,
    /// Whether it is from a former run, and nobody has sent it since.
    pub(super) from_disk: bool,
    pub(super) origin: Origin,
    pub(super) resource: Resource,
}

/// A decoded resource.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Resource {
    Listener(Arc<config::listener::Listener>),
    Cluster(Arc<config::cluster::Cluster>),
    Routes(Arc<config::route::RouteConfig>),
    Endpoints(Arc<config::endpoint::LoadAssignment>),
    Secret(Arc<config::tls::Secret>),
    /// What it means depends on who asks for it.
    Extension(Arc<TypedExtensionConfig>),
}

impl Resource {
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Listener(listener) => Arc::clone(&listener.name),
            Self::Cluster(cluster) => Arc::clone(&cluster.name),
            Self::Routes(routes) => Arc::clone(&routes.name),
            Self::Endpoints(assignment) => Arc::clone(&assignment.cluster_name),
            Self::Secret(secret) => Arc::clone(&secret.name),
            Self::Extension(extension) => extension.name.as_str().into(),
        }
    }
}

/// Where a resource is written: turns its errors into places in a file.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    file: Arc<str>,
    /// The file's text, unless it is binary.
    document: Option<Document>,
    /// The resource's path in the file.
    prefix: String,
}

impl Origin {
    pub(super) fn in_document(document: &Document, prefix: impl Into<String>) -> Self {
        let file = Arc::clone(document.name());
        Self { file, document: Some(document.clone()), prefix: prefix.into() }
    }

    pub(super) fn in_binary(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), document: None, prefix: String::new() }
    }

    /// The same place without the text, which is read again when it is wanted.
    fn at_rest(&self) -> Self {
        let document = self.document.as_ref().map(Document::at_rest);
        Self { document, file: Arc::clone(&self.file), prefix: self.prefix.clone() }
    }

    /// Whether something is written at `path`, as far as that can be told.
    fn contains(&self, path: &str) -> bool {
        self.document.as_ref().is_some_and(|document| document.contains(path))
    }

    /// The resource below this one at `path`.
    pub(super) fn below(&self, path: &str) -> Self {
        let prefix = Invalid::new(path, "").under(&self.prefix).path;
        Self { prefix, ..self.clone() }
    }

    /// The error with file, line and column.
    pub(super) fn locate(&self, error: Invalid) -> Located {
        let Invalid { path, reason } = error.under(&self.prefix);
        match &self.document {
            Some(document) => document.error_at(path, reason),
            None => Located { file: Arc::clone(&self.file), at: None, path, reason },
        }
    }

    /// All of `errors` with file, line and column.
    pub(super) fn locate_all(&self, errors: Vec<Invalid>) -> Vec<Located> {
        errors.into_iter().take(MAX_REPORTED).map(|error| self.locate(error)).collect()
    }
}

/// Why the content of a file cannot be decoded.
#[derive(Debug)]
pub(super) enum Undecodable {
    /// It is no DiscoveryResponse at all, for example half a file.
    Text(Vec<Located>),
    /// Something that it says is wrong.
    Content(Vec<Located>),
}

impl From<Vec<Located>> for Undecodable {
    fn from(errors: Vec<Located>) -> Self {
        Self::Content(errors)
    }
}

/// Decodes the content of a file; `last` is what it held before. A resource that is equal to what it was
/// keeps its identity and its time.
pub(super) fn decode_resources(
    key: &FileKey,
    content: &Content,
    last: Option<&ResourceFile>,
) -> Result<ResourceFile, Undecodable> {
    let (response, origin) = response(&key.path, content)?;
    let mut parts = Parts::default();
    let message = key.kind.message();
    let type_name = type_name(&response.type_url);
    if !type_name.is_empty() && type_name != message {
        let reason = format!("this file is to hold {message}");
        return Err(vec![origin.locate(Invalid::new("type_url", reason))].into());
    }
    let mut items: BTreeMap<Name, Item> = BTreeMap::new();
    let mut errors = Vec::new();
    for (index, any) in response.resources.into_iter().enumerate() {
        if errors.len() >= MAX_REPORTED {
            break;
        }
        let origin = origin.below(&format!("resources[{index}]"));
        let item = match item(key.kind, any, &response.version_info, &origin, &mut parts) {
            Ok(item) => item,
            Err(invalid) => {
                errors.extend(origin.locate_all(invalid));
                continue;
            }
        };
        let name = item.resource.name();
        if items.contains_key(&name) {
            let reason = format!("a second resource is called {name:?}");
            errors.push(origin.locate(Invalid::new("name", reason)));
        }
        let old = last.and_then(|last| last.items.get(&name));
        let item = match old.filter(|old| old.resource == item.resource) {
            Some(old) => Item { updated: old.updated, resource: old.resource.clone(), ..item },
            None => item,
        };
        items.insert(name, item);
    }
    if !errors.is_empty() {
        return Err(errors.into());
    }
    if !key.kind.is_full_set() {
        for (name, old) in last.iter().flat_map(|last| &last.items) {
            items.entry(Arc::clone(name)).or_insert_with(|| old.clone());
        }
    }
    Ok(ResourceFile { digest: content.digest, version: response.version_info, items })
}

fn response(path: &Path, content: &Content) -> Result<(DiscoveryResponse, Origin), Undecodable> {
    let file: Arc<str> = path.display().to_string().into();
    let refuse = |reason: String| {
        let file = Arc::clone(&file);
        Undecodable::Text(vec![Located { file, at: None, path: String::new(), reason }])
    };
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension == Some("pb_text") {
        return Err(refuse(NO_TEXT_FORMAT.to_owned()));
    }
    if extension == Some("pb") {
        return Ok(binary(&file, &content.bytes)?);
    }
    let text = std::str::from_utf8(&content.bytes)
        .map_err(|error| refuse(format!("not UTF-8 text: {error}")))?;
    if text.trim().is_empty() {
        return Err(refuse("the file is empty; write `resources: []` for none".to_owned()));
    }
    let document = Document::of_file(path, text);
    let response = document.read().map_err(|errors| match document.locate("") {
        Some(_) => Undecodable::Content(errors),
        None => Undecodable::Text(errors),
    })?;
    Ok((response, Origin::in_document(&document, "")))
}

/// The message in `bytes`, which are the content of `file`.
fn binary<M: Message + prost::Name + Default>(
    file: &Arc<str>,
    bytes: &[u8],
) -> Result<(M, Origin), Vec<Located>> {
    let origin = Origin::in_binary(file);
    xds::strict::check_bytes::<M>(bytes).map_err(|found| {
        let found = found.into_iter().map(|it| Invalid::new(it.path, it.reason));
        found.map(|error| origin.locate(error)).collect::<Vec<_>>()
    })?;
    let message = M::decode(bytes).map_err(|error| {
        let reason = format!("not a {}: {error}", M::full_name());
        vec![origin.locate(Invalid::new("", reason))]
    })?;
    Ok((message, origin))
}

pub(super) fn item(
    kind: Kind,
    any: Any,
    version: &str,
    origin: &Origin,
    parts: &mut Parts,
) -> Result<Item, Vec<Invalid>> {
    let (raw, version, origin) = match unpack::<Wrapped>(&any) {
        Some(wrapped) => {
            let (resource, version) = wrapped.and_then(unwrap).map_err(|error| vec![error])?;
            (resource, version, origin.below("resource"))
        }
        None => (any, version.to_owned(), origin.clone()),
    };
    let wrong = || {
        let found = type_name(&raw.type_url);
        vec![Invalid::new("", format!("expected a {}, found a {found}", kind.message()))]
    };
    let resource = match kind {
        Kind::Listener => decode::listener(&expect(&raw, wrong)?)
            .map(|listener| Resource::Listener(Arc::new(listener))),
        Kind::Cluster => decode::cluster(&expect(&raw, wrong)?).map(|mut cluster| {
            parts.share(&mut cluster);
            Resource::Cluster(Arc::new(cluster))
        }),
        Kind::Routes => decode::route_config(&expect(&raw, wrong)?)
            .map(|routes| Resource::Routes(Arc::new(routes))),
        Kind::Endpoints => decode::load_assignment(&expect(&raw, wrong)?).map(|mut assignment| {
            parts.share_endpoints(&mut assignment);
            Resource::Endpoints(Arc::new(assignment))
        }),
        Kind::Secret => {
            decode::secret(&expect(&raw, wrong)?).map(|secret| Resource::Secret(Arc::new(secret)))
        }
        Kind::Extension => decode::extension(expect(&raw, wrong)?)
            .map(|extension| Resource::Extension(Arc::new(extension))),
    }?;
    let origin = origin.at_rest();
    Ok(Item { version, updated: SystemTime::now(), raw, from_disk: false, origin, resource })
}

fn unwrap(wrapped: Wrapped) -> Result<(Any, String), Invalid> {
    // The resource names itself; aliases matter on a stream only.
    let Wrapped {
        name: _,
        aliases: _,
        version,
        resource,
        resource_name,
        ttl,
        cache_control: _,
        metadata: _,
    } = wrapped;
    if resource_name.is_some() {
        return Err(Invalid::new("resource_name", "not supported: a resource has no variants"));
    }
    if ttl.is_some() {
        return Err(Invalid::new("ttl", "not supported: a file's resources do not expire"));
    }
    let resource = resource.ok_or_else(|| Invalid::new("resource", "required"))?;
    Ok((resource, version))
}

fn expect<M: Message + prost::Name + Default>(
    any: &Any,
    wrong: impl FnOnce() -> Vec<Invalid>,
) -> Result<M, Vec<Invalid>> {
    unpack(any).ok_or_else(wrong)?.map_err(|error| vec![error])
}

/// The packed message; none if it is of another type.
fn unpack<M: Message + prost::Name + Default>(any: &Any) -> Option<Result<M, Invalid>> {
    (type_name(&any.type_url) == M::full_name()).then(|| {
        M::decode(any.value.as_slice()).map_err(|error| Invalid::new("", error.to_string()))
    })
}

fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}
