//! The folder that the control plane serves: a file for each object, so that what is applied replaces what is of the same
//! kind and name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use control_api::model::object::{
    DEFAULT_NAMESPACE, Metadata, Object, SourceFile, TypeMeta, read_file,
};
use control_api::source::directory::Directory;
use control_api::source::{Failure, ObjectSet, Source};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use xds::yaml::tree::{self, Node};

/// What the gateway listens on, rather than on all addresses of the machine.
const LOOPBACK: &str = "127.0.0.1";

/// The folder, and what was given to fill it.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// What the files that were given said last, and the files here that they became.
    given: BTreeMap<String, Given>,
}

#[derive(Debug)]
struct Given {
    text: String,
    documents: BTreeSet<String>,
}

/// A file of the folder: one object.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    /// What the file is called: by the object's kind, namespace and name.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

impl Folder {
    /// Fills a new folder with the base of what is given. Gives the files that were left aside, since they have objects
    /// that others have already.
    ///
    /// # Errors
    /// If a file cannot be read or written, or there is none.
    pub(super) fn lay(dir: PathBuf, given: &[PathBuf]) -> anyhow::Result<(Self, Vec<String>)> {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut files = files(&Directory::new(given.iter().cloned()).load())?;
        // Variants are called after what they vary.
        files.sort_by_key(|file| {
            (Path::new(&file.name).file_name().map_or(0, |it| it.len()), file.name.clone())
        });
        let (mut folder, mut aside) = (Self { dir, given: BTreeMap::new() }, Vec::new());
        let mut taken = BTreeSet::new();
        for file in files {
            let documents = documents(&file.text).with_context(|| file.name.clone())?;
            let names: BTreeSet<_> = documents.iter().map(|it| it.name.clone()).collect();
            let mut given = Given { text: file.text.clone(), documents: BTreeSet::new() };
            if names.is_disjoint(&taken) {
                folder.write(&documents)?;
                taken.extend(names.iter().cloned());
                given.documents = names;
            } else {
                aside.push(file.name.clone());
            }
            folder.given.insert(file.name.clone(), given);
        }
        Ok((folder, aside))
    }

    /// Applies what is different in what was given; says what has happened.
    pub(super) fn follow(&mut self, set: &ObjectSet) -> Vec<String> {
        let mut events: Vec<_> = set.failures.iter().filter_map(unreadable).collect();
        let files = files_read(set);
        for file in &files {
            if self.given.get(&file.name).is_none_or(|known| known.text != file.text) {
                events.push(match self.take(file) {
                    Ok(()) => format!("{} is applied", file.name),
                    Err(error) => format!("{} changes nothing: {error:#}", file.name),
                });
            }
        }
        let failed = |name: &str| {
            set.failures.iter().any(
                |it| matches!(it, Failure::File { name: failed, .. } if name.starts_with(failed)),
            )
        };
        let gone: Vec<_> = self
            .given
            .keys()
            .filter(|name| !failed(name) && files.iter().all(|file| file.name != **name))
            .cloned()
            .collect();
        for name in gone {
            let given = self.given.remove(&name);
            self.remove(given.into_iter().flat_map(|it| it.documents));
            events.push(format!("{name} is deleted, and its objects with it"));
        }
        events
    }

    fn take(&mut self, file: &SourceFile) -> anyhow::Result<()> {
        let documents = documents(&file.text)?;
        self.write(&documents)?;
        let names: BTreeSet<_> = documents.into_iter().map(|it| it.name).collect();
        // They are this file's now, whosesoever they were.
        for other in self.given.values_mut() {
            other.documents.retain(|it| !names.contains(it));
        }
        let given = Given { text: file.text.clone(), documents: names.clone() };
        let before = self.given.insert(file.name.clone(), given);
        let before = before.map(|it| it.documents).unwrap_or_default();
        self.remove(before.into_iter().filter(|it| !names.contains(it)));
        Ok(())
    }

    fn write(&self, documents: &[Document]) -> anyhow::Result<()> {
        documents.iter().try_for_each(|it| write(&self.dir, it))
    }

    fn remove(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            // Somebody may have been faster.
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

/// Puts a file into a folder in one step.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(dir: &Path, document: &Document) -> anyhow::Result<()> {
    let (draft, path) = (dir.join(format!(".{}", document.name)), dir.join(&document.name));
    let written = fs::write(&draft, &document.text).and_then(|()| fs::rename(&draft, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The objects of a text, one by one.
///
/// # Errors
/// If it is no YAML, or not of objects.
pub(super) fn documents(text: &str) -> anyhow::Result<Vec<Document>> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line == "---" || line.starts_with("--- ") {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let mut documents = Vec::new();
    for part in parts {
        let file = SourceFile::new(Path::new(""), part);
        let objects = read_file(&file, DEFAULT_NAMESPACE).map_err(|(at, problem)| {
            anyhow::anyhow!("{at} of a document: {}: {}", problem.path, problem.reason)
        })?;
        let Some(object) = objects.first() else { continue };
        let (type_meta, metadata) = match object {
            Ok(Object { type_meta, metadata, .. }) => (type_meta, metadata),
            // The control plane says what is wrong with it.
            Err(unreadable) => (&unreadable.type_meta, &unreadable.metadata),
        };
        if type_meta.kind.is_empty() {
            bail!("there is something without kind, which is no object");
        }
        let text = match (&*type_meta.group, &*type_meta.kind) {
            ("networking.istio.io", "Gateway") => on_loopback(&file.text)?,
            _ => file.text.clone(),
        };
        documents.push(Document { name: file_name(type_meta, metadata), text });
    }
    Ok(documents)
}

fn file_name(type_meta: &TypeMeta, metadata: &Metadata) -> String {
    let TypeMeta { group, kind, .. } = type_meta;
    let Metadata { namespace, name, .. } = metadata;
    let parts = [kind.to_lowercase(), group.clone(), namespace.clone(), name.replace('/', "_")];
    let parts: Vec<_> = parts.into_iter().filter(|it| !it.is_empty()).collect();
    format!("{}.yaml", parts.join("."))
}

/// A gateway that is for this machine only, unless it says otherwise.
fn on_loopback(text: &str) -> anyhow::Result<String> {
    let documents =
        tree::parse_all(text).map_err(|it| anyhow::anyhow!("{}: {}", it.at, it.reason))?;
    let mut gateway = documents.first().map(value).unwrap_or_default();
    let servers = gateway["spec"]["servers"].as_array_mut().into_iter().flatten();
    for server in servers.filter_map(Value::as_object_mut) {
        server.entry("bind").or_insert_with(|| json!(LOOPBACK));
    }
    Ok(format!("{gateway:#}\n"))
}

fn value(node: &Node<'_>) -> Value {
    match &node.value {
        _ if node.is_null() => Value::Null,
        tree::Value::Scalar { text, plain: true } => match text.parse::<Value>() {
            Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
            _ => json!(text),
        },
        tree::Value::Scalar { text, .. } => json!(text),
        tree::Value::List(items) => items.iter().map(value).collect(),
        tree::Value::Map(entries) => {
            entries.iter().map(|(key, node)| (key.text.to_string(), value(node))).collect()
        }
    }
}

/// The files of a set.
///
/// # Errors
/// If one could not be read, or there is none.
fn files(set: &ObjectSet) -> anyhow::Result<Vec<Arc<SourceFile>>> {
    if let Some(failure) = set.failures.iter().find_map(unreadable) {
        bail!(failure);
    }
    let files = files_read(set);
    if files.is_empty() {
        bail!("there is no YAML in what was given");
    }
    Ok(files)
}

fn files_read(set: &ObjectSet) -> Vec<Arc<SourceFile>> {
    let unread = set.failures.iter().filter_map(|failure| match failure {
        Failure::Object { unreadable, .. } => Some(&unreadable.origin.file),
        Failure::File { .. } => None,
    });
    let read = set.objects.iter().map(|object| &object.origin.file);
    let by_name: BTreeMap<_, _> = read.chain(unread).map(|it| (it.name.clone(), it)).collect();
    by_name.into_values().map(Arc::clone).collect()
}

/// That a whole file could not be read; of single objects the control plane tells.
fn unreadable(failure: &Failure) -> Option<String> {
    match failure {
        Failure::File { name, at, problem, .. } => {
            let at = at.map(|at| format!(":{at}")).unwrap_or_default();
            Some(format!("{name}{at} cannot be read: {}", problem.reason))
        }
        Failure::Object { .. } => None,
    }
}

/// The sets of objects in these places, as they come. A task of its own reads them: a source must not be interrupted.
pub(super) fn sets(paths: Vec<PathBuf>) -> mpsc::Receiver<ObjectSet> {
    let mut directory = Directory::new(paths);
    let (sender, sets) = mpsc::channel(1);
    tokio::spawn(async move { while sender.send(directory.next().await).await.is_ok() {} });
    sets
}
