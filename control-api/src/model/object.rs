//! An object: what it is, what it is called, where it comes from, and its typed content.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use xds::yaml::Position;
use xds::yaml::tree::{Node, Value, parse_all};

use super::kind::{Kind, KindInfo, Spec};
use crate::yaml::{self, Problem, Reading};

/// The namespace of an object that names none, as `kubectl` has it.
pub const DEFAULT_NAMESPACE: &str = "default";

/// One object of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Group, version and kind.
    pub type_meta: TypeMeta,
    /// Its name and what else all kinds have.
    pub metadata: Metadata,
    /// Its content.
    pub spec: Spec,
    /// Where it was read.
    pub origin: Origin,
    /// Fields of it that nothing reads, with a guess what was meant.
    pub unknown: Vec<Problem>,
}

/// Group, version and kind of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeMeta {
    /// The group; empty for Kubernetes' core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind's name.
    pub kind: String,
}

/// What objects of all kinds have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The name, unique per kind and namespace.
    pub name: String,
    /// The namespace; empty for kinds that have none.
    pub namespace: String,
    /// By which selectors find it.
    pub labels: BTreeMap<String, String>,
    /// What else someone noted.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, RFC 3339; the older of two conflicting objects wins.
    pub creation_timestamp: Option<String>,
}

/// Where an object was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Which of its documents, from 0.
    pub document: usize,
    /// The object's path in the document: empty, or `items[2]` of a `List`.
    pub base: String,
    /// The line where it starts.
    pub line: u32,
}

impl Origin {
    /// Where the field `path` of the object stands, or the nearest thing around it.
    ///
    /// The file's text is parsed anew: positions are wanted only when something is wrong.
    pub fn locate(&self, path: &str) -> Position {
        let start = Position { line: self.line, column: 1 };
        let documents = parse_all(&self.file.text).unwrap_or_default();
        let Some(root) = documents.get(self.document) else { return start };
        let dot = if self.base.is_empty() || path.is_empty() { "" } else { "." };
        xds::yaml::locate(root, &format!("{}{dot}{path}", self.base)).0
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.name, self.line)
    }
}

/// A file and its text, which may hold secrets: it is not for printing.
#[derive(PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, as it was given.
    pub name: String,
    /// What it said when it was read.
    pub text: String,
}

impl SourceFile {
    /// A file with this path and text.
    pub fn new(path: &Path, text: String) -> Arc<Self> {
        Arc::new(Self { name: path.display().to_string(), text })
    }
}

/// What keeps one object of a file from being used.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// What it would have been, as far as it says so.
    pub type_meta: TypeMeta,
    /// What it would have been called.
    pub metadata: Metadata,
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong.
    pub problem: Problem,
}

impl Unreadable {
    /// What would tell it from all others.
    pub fn key(&self) -> Key {
        Key::new(&self.type_meta, &self.metadata)
    }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// What tells it from all others.
    pub fn key(&self) -> Key {
        Key::new(&self.type_meta, &self.metadata)
    }

    /// `namespace/name`, or only the name of what has no namespace.
    pub fn full_name(&self) -> String {
        let Metadata { name, namespace, .. } = &self.metadata;
        if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
    }

    /// Reads an object from a document, or a part of it.
    ///
    /// # Errors
    /// It is no object, of a version that is not known, or one of its fields is not what it must be.
    pub fn read(node: &Node<'_>, origin: Origin, default_namespace: &str) -> Read {
        let mut draft = Draft { origin, ..Draft::new(node, default_namespace) };
        match draft.read(node) {
            Ok(spec) => Ok(Object {
                type_meta: draft.type_meta,
                metadata: draft.metadata,
                spec,
                origin: draft.origin,
                unknown: draft.unknown,
            }),
            Err(problem) => Err(Box::new(Unreadable {
                type_meta: draft.type_meta,
                metadata: draft.metadata,
                origin: draft.origin,
                problem,
            })),
        }
    }
}

/// What tells an object from all others. Versions of a kind are the same objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Key {
    /// The key of an object with this type and these names.
    pub fn new(type_meta: &TypeMeta, metadata: &Metadata) -> Self {
        Self {
            group: type_meta.group.clone(),
            kind: type_meta.kind.clone(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{kind} {namespace}{slash}{name}")
    }
}

/// An object on the way.
struct Draft<'a> {
    type_meta: TypeMeta,
    metadata: Metadata,
    origin: Origin,
    unknown: Vec<Problem>,
    default_namespace: &'a str,
}

impl<'a> Draft<'a> {
    fn new(node: &Node<'_>, default_namespace: &'a str) -> Self {
        let api_version = yaml::text(node, "apiVersion").unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = yaml::text(node, "kind").unwrap_or_default().to_owned();
        let file = Arc::new(SourceFile { name: String::new(), text: String::new() });
        Self {
            type_meta: TypeMeta { group: group.into(), version: version.into(), kind },
            metadata: Metadata::default(),
            origin: Origin { file, document: 0, base: String::new(), line: node.at.line },
            unknown: Vec::new(),
            default_namespace,
        }
    }

    fn read(&mut self, node: &Node<'_>) -> Result<Spec, Problem> {
        let problem = |path: &str, reason: String| Err(Problem { path: path.into(), reason });
        for required in ["apiVersion", "kind"] {
            if yaml::text(node, required).is_none() {
                return problem(required, "Required value: this is no Kubernetes object".into());
            }
        }
        let info = KindInfo::find(&self.type_meta.group, &self.type_meta.kind);
        let TypeMeta { group, version, kind } = &self.type_meta;
        let metadata = yaml::get(node, "metadata").filter(|metadata| !metadata.is_null());
        if let Some(metadata) = metadata {
            // Kubernetes fills in and checks much more than is read here.
            self.metadata = yaml::read(metadata, "metadata", &[]).value?;
        }
        match info {
            Some(info) if !info.namespaced => self.metadata.namespace.clear(),
            _ if self.metadata.namespace.is_empty() => {
                self.metadata.namespace = self.default_namespace.to_owned();
            }
            _ => {}
        }
        if self.metadata.name.is_empty()
            && metadata.and_then(|it| yaml::text(it, "generateName")).is_none()
        {
            return problem(
                "metadata.name",
                "Required value: name or generateName is required".into(),
            );
        }
        let Some(info) = info else { return Ok(Spec::Other) };
        if !info.versions.contains(&version.as_str()) {
            let reason = format!(
                "no matches for kind {kind:?} in version \"{group}/{version}\"; known are {}",
                info.versions.join(", ")
            );
            return problem("apiVersion", reason);
        }
        self.content(node, info)
    }

    fn content(&mut self, node: &Node<'_>, info: &KindInfo) -> Result<Spec, Problem> {
        const TYPE: [&str; 3] = ["apiVersion", "kind", "metadata"];
        let absent = Node { at: node.at, value: Value::Map(Vec::new()) };
        let Reading { value, unknown } = if info.has_spec {
            if info.complete {
                let known = ["apiVersion", "kind", "metadata", "spec", "status"];
                self.unknown = yaml::read::<super::kubernetes::Bare>(node, "", &known).unknown;
            }
            let spec = yaml::get(node, "spec").filter(|spec| !spec.is_null()).unwrap_or(&absent);
            info.read(spec, "spec", &[])
        } else {
            info.read(node, "", &TYPE)
        };
        self.unknown.extend(unknown);
        value
    }
}

/// An object, or what it lacks to be one.
pub type Read = Result<Object, Box<Unreadable>>;

/// All objects of a file, those of a `List` one by one; documents without content are left out.
///
/// # Errors
/// The file is no YAML.
pub fn read_file(
    file: &Arc<SourceFile>,
    default_namespace: &str,
) -> Result<Vec<Read>, (Position, Problem)> {
    let documents = parse_all(&file.text)
        .map_err(|error| (error.at, Problem { path: error.path, reason: error.reason }))?;
    let mut objects = Vec::new();
    for (document, root) in documents.iter().enumerate().filter(|(_, root)| !root.is_null()) {
        let origin = |base: String, node: &Node<'_>| Origin {
            file: Arc::clone(file),
            document,
            base,
            line: node.at.line,
        };
        let is_list = yaml::text(root, "kind").is_some_and(|kind| kind == "List");
        match yaml::get(root, "items").map(|items| &items.value) {
            Some(Value::List(items)) if is_list => {
                for (index, item) in items.iter().enumerate() {
                    let origin = origin(format!("items[{index}]"), item);
                    objects.push(Object::read(item, origin, default_namespace));
                }
            }
            _ => objects.push(Object::read(root, origin(String::new(), root), default_namespace)),
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::istio::virtual_service::VirtualService;
    use crate::model::kind::Typed;

    fn read(text: &str) -> Vec<Result<Object, Box<Unreadable>>> {
        let file = SourceFile::new(Path::new("x.yaml"), text.to_owned());
        read_file(&file, DEFAULT_NAMESPACE).unwrap()
    }

    const ROUTE: &str =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n";

    #[test]
    fn documents_and_lists_become_objects_that_know_their_place() {
        let text = format!(
            "---\n{ROUTE}spec: {{hosts: [b]}}\n---\n# nothing\n---\nkind: List\napiVersion: v1\nitems:\n\
             - {{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: n}},\n   spec: {{ports: [{{port: 1}}]}}}}\n"
        );
        let objects: Vec<_> = read(&text).into_iter().map(Result::unwrap).collect();
        assert_eq!(VirtualService::of(&objects[0].spec).unwrap().hosts, ["b"]);
        assert_eq!((objects[0].full_name(), objects[0].origin.line), ("default/a".into(), 2));
        assert_eq!((objects[1].full_name(), objects[1].kind()), ("n/s".into(), Kind::Service));
        assert_eq!(objects[1].origin.locate("spec.ports[0].port").line, 13);
        assert_eq!(objects[0].origin.locate("spec.hosts[0]"), Position { line: 5, column: 16 });
    }

    #[test]
    fn what_keeps_an_object_from_being_used_is_named() {
        let problem = |text: &str| read(text).remove(0).unwrap_err().problem.to_string();
        assert!(problem("a: 1").starts_with("apiVersion: Required value"));
        assert!(problem("apiVersion: v1\nkind: Service").starts_with("metadata.name: Required"));
        assert!(problem(&ROUTE.replace("/v1", "/v7")).contains("known are v1, v1alpha3, v1beta1"));
        assert_eq!(
            problem(&format!("{ROUTE}spec: {{http: [{{retries: {{attempts: many}}}}]}}")),
            "spec.http[0].retries.attempts: Invalid value: \"many\": \
             spec.http[0].retries.attempts in body must be of type integer"
        );
        assert!(problem("- a").contains("no Kubernetes object"));
    }

    #[test]
    fn unknown_fields_count_only_where_all_fields_are_known() {
        let objects = read(&format!(
            "{ROUTE}spec: {{host: [b]}}\nstatsu: {{}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: p, uid: x}}\nspec: {{dnsPolicy: None}}\n"
        ));
        let unknown = |index: usize| -> Vec<_> {
            let object: &Object = objects[index].as_ref().unwrap();
            object.unknown.iter().map(|problem| problem.path.clone()).collect()
        };
        assert_eq!(unknown(0), ["statsu", "spec.host"]);
        assert!(unknown(1).is_empty());
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {tls.key: aHVzaA==}\n";
        let shown = format!("{:?}", read(text));
        assert!(shown.contains("tls.key") && !shown.contains("aHVzaA"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn no_damaged_file_panics(at in 0usize..200, with in "\\PC{0,3}") {
            let mut text = format!("{ROUTE}spec: {{hosts: [b], http: [{{timeout: 1s}}]}}\n");
            let at = (at..).find(|at| text.is_char_boundary((*at).min(text.len()))).unwrap_or(0);
            text.insert_str(at.min(text.len()), &with);
            let file = SourceFile::new(Path::new("x.yaml"), text);
            let _ = read_file(&file, DEFAULT_NAMESPACE);
        }
    }
}
