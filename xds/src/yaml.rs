//! Reads YAML and JSON into the subset's messages; an error names file, line, column and field path.
//!
//! The text becomes a tree that knows its positions ([`tree`]); the tree becomes a message through its
//! descriptor ([`message`]). All unknown fields and bad values of a file are reported together.

mod message;
mod path;
mod scalar;
mod suggest;
pub mod tree;
mod value;
mod well_known;

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use prost::{Message, Name};
use prost_reflect::MessageDescriptor;

use crate::DESCRIPTOR_POOL;

pub use path::locate;
pub use suggest::nearest;

/// A line and a column of a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl Position {
    /// From the YAML scanner's line (from 1) and column (from 0).
    fn new(line: usize, column: usize) -> Self {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: clamp(line), column: clamp(column).saturating_add(1) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A problem in a configuration text, printed as `file:line:column: field.path: reason`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The document's name.
    pub file: Arc<str>,
    /// Where in its text, as far as that is known.
    pub at: Option<Position>,
    /// The field; empty for the document as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(at) = self.at {
            write!(f, ":{at}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// One configuration file: its name and its text.
#[derive(Debug, Clone)]
pub struct Document {
    name: Arc<str>,
    /// None at rest.
    text: Option<Arc<str>>,
    file: Option<Arc<Source>>,
}

/// The file a text was read from.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// Of the text.
    digest: u64,
}

impl Document {
    /// A document called `name` in errors, usually its file's path.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: Some(text.into()), file: None }
    }

    /// A document with the text of the file at `path`, and called by it.
    pub fn of_file(path: &Path, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        // A pipe, for one, gives its text only once.
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let source = Source { path: path.to_owned(), digest: digest(&text) };
        Self {
            file: is_file.then(|| Arc::new(source)),
            ..Self::new(path.display().to_string(), text)
        }
    }

    /// The same document without its text, if it comes from a file: what is seldom wanted is read again then.
    #[must_use]
    pub fn at_rest(&self) -> Self {
        let text = if self.file.is_some() { None } else { self.text.clone() };
        Self { text, name: Arc::clone(&self.name), file: self.file.clone() }
    }

    /// The text; none if it was put to rest, and its file is gone or says something else by now.
    pub fn text(&self) -> Option<Arc<str>> {
        if let Some(text) = &self.text {
            return Some(Arc::clone(text));
        }
        let Source { path, digest: wanted } = self.file.as_deref()?;
        let text = std::fs::read_to_string(path).ok()?;
        (digest(&text) == *wanted).then(|| text.into())
    }

    /// What the document is called in errors.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Reads the document as a message. Errors come in the order of the text, never empty.
    ///
    /// The text is parsed on a thread of its own. An allocator keeps threads apart, so the many small things
    /// that come and go there leave no holes among what is made of the message here, and stays.
    pub fn read<M: Message + Name + Default>(&self) -> Result<M, Vec<Error>> {
        let failed = |reason: String| vec![self.error(None, String::new(), reason)];
        let descriptor = DESCRIPTOR_POOL
            .get_message_by_name(&M::full_name())
            .ok_or_else(|| failed(format!("{} has no descriptor", M::full_name())))?;
        let encoded = thread::scope(|scope| {
            let encode = || self.encode(&descriptor);
            match thread::Builder::new().name("parser".into()).spawn_scoped(scope, encode) {
                Ok(parser) => parser.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(_) => encode(),
            }
        })?;
        M::decode(encoded.as_slice()).map_err(|error| failed(error.to_string()))
    }

    /// Reads the document as the message of this name, and gives its bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read), or the subset has no such message.
    pub(crate) fn read_as(&self, name: &str) -> Result<Vec<u8>, Vec<Error>> {
        let unknown = || vec![self.error(None, String::new(), format!("{name} is not supported"))];
        self.encode(&DESCRIPTOR_POOL.get_message_by_name(name).ok_or_else(unknown)?)
    }

    /// The document as an encoded message.
    fn encode(&self, descriptor: &MessageDescriptor) -> Result<Vec<u8>, Vec<Error>> {
        let Some(text) = self.text() else {
            let reason = "the file has changed since it was read";
            return Err(vec![self.error(None, String::new(), reason.into())]);
        };
        let root = tree::parse(&text)
            .map_err(|error| vec![self.error(Some(error.at), error.path, error.reason)])?;
        let message = message::read(&root, descriptor).map_err(|problems| {
            problems
                .into_iter()
                .map(|problem| self.error(Some(problem.at), problem.path, problem.reason))
                .collect::<Vec<_>>()
        })?;
        // A large file's tree, dynamic message and bytes would otherwise be in memory together.
        drop(root);
        Ok(message.encode_to_vec())
    }

    /// Where the value at `path` starts, or its nearest ancestor; none if there is no text, or it is no YAML.
    ///
    /// The text is parsed anew: positions are wanted only when something is wrong.
    pub fn locate(&self, path: &str) -> Option<Position> {
        let text = self.text()?;
        let root = tree::parse(&text).ok()?;
        Some(path::locate(&root, path).0)
    }

    /// Whether there is a value at `path`.
    pub fn contains(&self, path: &str) -> bool {
        let Some(text) = self.text() else { return false };
        tree::parse(&text).is_ok_and(|root| path::locate(&root, path).1.is_empty())
    }

    /// An error of the field at `path`, with its place in this document.
    pub fn error_at(&self, path: impl Into<String>, reason: impl Into<String>) -> Error {
        let path = path.into();
        self.error(self.locate(&path), path, reason.into())
    }

    fn error(&self, at: Option<Position>, path: String, reason: String) -> Error {
        Error { file: self.name.clone(), at, path, reason }
    }
}

/// Tells one text from another.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::Document;
    use crate::envoy::config::bootstrap::v3::Bootstrap;
    use crate::envoy::config::cluster::v3::{Cluster, cluster};
    use crate::envoy::extensions::filters::http::router::v3::Router;
    use crate::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_filter,
    };

    fn read(text: &str) -> Bootstrap {
        Document::new("x.yaml", text).read().unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn errors<M: prost::Message + Name + Default>(text: &str) -> Vec<String> {
        let errors = Document::new("x.yaml", text).read::<M>().err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect()
    }

    const LISTENER: &str = "
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, portValue: 8080}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          statPrefix: ingress
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          use_remote_address: true
          stream_idle_timeout: 1.5s
          http_filters:
          - name: router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
";

    #[test]
    fn nested_any_messages_are_read_through_their_types() {
        let bootstrap = read(LISTENER);
        let listeners = bootstrap.static_resources.unwrap().listeners;
        let filter = &listeners[0].filter_chains[0].filters[0];
        let Some(config) = &filter.config_type else { panic!("no typed_config") };
        let crate::envoy::config::listener::v3::filter::ConfigType::TypedConfig(any) = config;
        let manager: HttpConnectionManager = any.to_msg().unwrap();
        assert_eq!(manager.stat_prefix, "ingress");
        assert_eq!(manager.use_remote_address, Some(true));
        assert_eq!(manager.stream_idle_timeout.unwrap().nanos, 500_000_000);
        let Some(http_filter::ConfigType::TypedConfig(router)) =
            &manager.http_filters[0].config_type
        else {
            panic!("no router")
        };
        router.to_msg::<Router>().unwrap();
    }

    #[test]
    fn every_unknown_field_is_reported_with_its_place() {
        let text = LISTENER
            .replace("use_remote_address", "use_remote_adress")
            .replace("filter_chains:", "filterChainz:");
        let bad = LISTENER.replace("statPrefix", "stat_prefixx").replace("portValue", "porty");
        let prefix = "static_resources.listeners[0]";
        assert_eq!(
            errors::<Bootstrap>(&bad),
            [
                format!(
                    "x.yaml:5:52: {prefix}.address.socket_address.porty: \
                     envoy.config.core.v3.SocketAddress has no such field, or it is not supported"
                ),
                format!(
                    "x.yaml:10:11: {prefix}.filter_chains[0].filters[0].typed_config.stat_prefixx: \
                     envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager \
                     has no such field; did you mean stat_prefix?"
                ),
            ]
        );
        assert_eq!(
            errors::<Bootstrap>(&text),
            [format!(
                "x.yaml:6:5: {prefix}.filterChainz: envoy.config.listener.v3.Listener has no such \
                 field; did you mean filter_chains?"
            )]
        );
    }

    #[test]
    fn an_unknown_type_is_named() {
        let bad = LISTENER.replace("http.router.v3.Router", "http.lua.v3.Lua");
        let errors = errors::<Bootstrap>(&bad);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(
            "x.yaml:17:24: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.\
             http_filters[0].typed_config: unknown @type \
             type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
        ));
    }

    #[test]
    fn one_of_takes_one_and_enums_take_names() {
        let cluster: Cluster =
            Document::new("x", "{name: a, type: STRICT_DNS, connect_timeout: {seconds: 3}}")
                .read()
                .unwrap();
        assert_eq!(cluster.connect_timeout.unwrap().seconds, 3);
        let expected =
            cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::StrictDns.into());
        assert_eq!(cluster.cluster_discovery_type, Some(expected));

        assert!(errors::<Cluster>("{type: STRICT_DN}")[0].ends_with("did you mean STRICT_DNS?"));
        assert!(errors::<Cluster>("{type: 77}")[0].ends_with("has no value 77"));
        let errors =
            errors::<crate::envoy::r#type::matcher::v3::StringMatcher>("exact: a\nprefix: b\n");
        assert_eq!(errors, ["x.yaml:2:1: prefix: only one of exact and prefix may be set"]);
    }

    #[test]
    fn bad_values_say_what_would_be_right() {
        let errors = errors::<Cluster>(
            "connect_timeout: 5\nname: 12\nper_connection_buffer_limit_bytes: -1\nload_assignment: []\n",
        );
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(errors[0].contains("1:18: connect_timeout: expected a duration in seconds"));
        assert!(errors[1].contains("2:7: name: expected a string, found 12: put it in quotes"));
        assert!(errors[2].contains("3:36: per_connection_buffer_limit_bytes: expected an integer"));
        assert!(errors[3].contains("4:18: load_assignment: expected the fields of a"));
    }

    #[test]
    fn a_document_at_rest_finds_its_places_as_long_as_its_file_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.yaml");
        std::fs::write(&path, LISTENER).unwrap();
        let document = Document::of_file(&path, LISTENER).at_rest();
        let place = |path: &str| document.locate(path).map(|at| at.to_string());
        assert_eq!(place("static_resources.listeners[0].name").unwrap(), "4:11");
        assert!(document.contains("static_resources") && !document.contains("admin"));
        assert!(document.read::<Bootstrap>().is_ok());
        std::fs::write(&path, format!("admin: {{}}{LISTENER}")).unwrap();
        assert_eq!(place("static_resources"), None);
        assert!(!document.contains("static_resources"));
        assert!(document.read::<Bootstrap>().is_err());
        assert!(Document::new("x", "a: 1").at_rest().contains("a"));
        assert!(Document::of_file("/dev/null".as_ref(), "a: 1").at_rest().contains("a"));
    }

    #[test]
    fn json_values_and_nulls_are_kept_or_unset() {
        let bootstrap = read(
            "node: {id: x, cluster: null, metadata: {a: [1, null, {b: 'true'}], c: true}}\nadmin: ~",
        );
        let node = bootstrap.node.unwrap();
        assert_eq!(node.cluster, "");
        let metadata = format!("{:?}", node.metadata.unwrap());
        assert!(metadata.contains("NumberValue(1.0)"), "{metadata}");
        assert!(metadata.contains("NullValue"), "{metadata}");
        assert!(metadata.contains("StringValue(\"true\")"), "{metadata}");
        assert!(bootstrap.admin.is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z0-9:{}\\[\\]&*!|>'\", \n\t?#%@.]{0,200}") {
            let document = Document::new("x", text);
            let _ = document.read::<Bootstrap>();
            let _ = document.locate("a.b[0]");
        }

        #[test]
        fn no_damaged_configuration_panics(cut in 0..LISTENER.len(), insert in ".{0,3}") {
            let mut text = LISTENER.to_owned();
            text.insert_str(cut, &insert);
            let _ = Document::new("x", text).read::<Bootstrap>();
        }
    }
}
