//! Objects from trees of YAML and JSON files, read again when something changes.
//!
//! A file that is no YAML keeps its last good objects, and so does a file that was emptied: an editor or a copy
//! that is not finished must not empty the mesh. To remove a file's objects, remove them from it, or the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{Failure, ObjectSet, Source};
use crate::model::object::{DEFAULT_NAMESPACE, Object, Read, SourceFile, read_file};
use crate::yaml::Problem;

/// A change is looked at when nothing more happened for this long: a file written in place is complete then.
const QUIET: Duration = Duration::from_millis(50);
/// A change is looked at after this long even if more keeps happening.
const LATEST: Duration = Duration::from_millis(500);
/// Everything is looked at this often in case no event came, as on network file systems.
const UNASKED: Duration = Duration::from_secs(10);
/// Deepest nesting of directories, against symlinks in circles.
const MAX_DEPTH: usize = 32;

/// Trees of files, and single files.
pub struct Directory {
    roots: Vec<PathBuf>,
    default_namespace: String,
    files: BTreeMap<PathBuf, State>,
    /// Roots and directories that could not be listed the last time.
    unlisted: Vec<(PathBuf, String)>,
    watch: Option<Watch>,
}

/// What is known of a file.
#[derive(Default)]
struct State {
    /// What it said when it was last looked at.
    text: Option<Arc<SourceFile>>,
    objects: Vec<Arc<Object>>,
    failures: Vec<Failure>,
}

impl Directory {
    /// The files `.yaml`, `.yml` and `.json` below these directories, and these files whatever they are called.
    /// What begins with a dot is left out.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            roots: roots.into_iter().collect(),
            default_namespace: DEFAULT_NAMESPACE.to_owned(),
            files: BTreeMap::new(),
            unlisted: Vec::new(),
            watch: None,
        }
    }

    /// The same, with objects that name no namespace in this one.
    #[must_use]
    pub fn with_default_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.default_namespace = namespace.into();
        self
    }

    /// Looks at all files, and gives what they hold now.
    pub fn load(&mut self) -> ObjectSet {
        self.refresh();
        self.set()
    }

    /// Looks at all files; whether anything is different now.
    fn refresh(&mut self) -> bool {
        let mut found = BTreeSet::new();
        let mut unlisted = Vec::new();
        for root in &self.roots {
            list(root, 0, &mut found, &mut unlisted);
        }
        let mut changed = unlisted != self.unlisted;
        self.unlisted = unlisted;
        let gone: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|path| !found.contains(*path))
            .filter(|path| !self.unlisted.iter().any(|(directory, _)| path.starts_with(directory)))
            .cloned()
            .collect();
        for path in gone {
            changed |= self.files.remove(&path).is_some();
        }
        for path in found {
            match fs::read_to_string(&path) {
                // It went while it was looked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    changed |= self.files.remove(&path).is_some();
                }
                read => {
                    let state = self.files.entry(path.clone()).or_default();
                    changed |= state.update(&path, read, &self.default_namespace);
                }
            }
        }
        changed
    }

    fn set(&self) -> ObjectSet {
        let mut set = ObjectSet::default();
        for (path, reason) in &self.unlisted {
            let below = self.files.iter().filter(|(file, _)| file.starts_with(path));
            set.failures.push(Failure::File {
                name: path.display().to_string(),
                at: None,
                problem: Problem { path: String::new(), reason: reason.clone() },
                kept: below.map(|(_, state)| state.objects.len()).sum(),
            });
        }
        for state in self.files.values() {
            set.objects.extend(state.objects.iter().cloned());
            set.failures.extend(state.failures.iter().cloned());
        }
        set
    }
}

impl State {
    /// Takes what the file says now; whether that is different.
    fn update(&mut self, path: &Path, read: io::Result<String>, namespace: &str) -> bool {
        let text = match read {
            Ok(text) => text,
            Err(error) => return self.fail(path, None, format!("cannot be read: {error}")),
        };
        if self.text.as_ref().is_some_and(|last| last.text == text) {
            return false;
        }
        let file = SourceFile::new(path, text);
        self.text = Some(Arc::clone(&file));
        if file.text.trim().is_empty() && !self.objects.is_empty() {
            let reason = "is empty now; to remove its objects, delete the file";
            return self.fail(path, None, reason.to_owned());
        }
        match read_file(&file, namespace) {
            Ok(objects) => self.take(objects),
            Err((at, problem)) => {
                let name = path.display().to_string();
                let kept = self.objects.len();
                self.failures = vec![Failure::File { name, at: Some(at), problem, kept }];
            }
        }
        true
    }

    fn fail(&mut self, path: &Path, at: Option<xds::yaml::Position>, reason: String) -> bool {
        let problem = Problem { path: String::new(), reason };
        let known = matches!(
            self.failures.as_slice(),
            [Failure::File { problem: last, .. }] if *last == problem
        );
        let (name, kept) = (path.display().to_string(), self.objects.len());
        self.failures = vec![Failure::File { name, at, problem, kept }];
        !known
    }

    /// The file's new objects; one that cannot be read stays as it was.
    fn take(&mut self, objects: Vec<Read>) {
        let last = std::mem::take(&mut self.objects);
        self.failures.clear();
        for object in objects {
            match object {
                Ok(object) => self.objects.push(Arc::new(object)),
                Err(unreadable) => {
                    let key = unreadable.key();
                    let kept = last.iter().find(|object| object.key() == key);
                    self.objects.extend(kept.cloned());
                    let kept = kept.is_some();
                    self.failures.push(Failure::Object { unreadable: unreadable.into(), kept });
                }
            }
        }
    }
}

impl Source for Directory {
    async fn next(&mut self) -> ObjectSet {
        if self.watch.is_none() {
            self.watch = Some(Watch::new(&self.roots));
            return self.load();
        }
        loop {
            if let Some(watch) = &mut self.watch {
                watch.changed().await;
            }
            if self.refresh() {
                return self.set();
            }
        }
    }
}

/// Tells when something below the roots may have changed.
struct Watch {
    /// Held for its events; none if the operating system cannot help.
    _watcher: Option<RecommendedWatcher>,
    signal: Arc<Notify>,
}

impl Watch {
    fn new(roots: &[PathBuf]) -> Self {
        let signal: Arc<Notify> = Arc::default();
        let handler = {
            let signal = Arc::clone(&signal);
            // An error means lost events: look, to be sure. Reading a file is no change of it.
            move |event: notify::Result<notify::Event>| match event {
                Ok(event) if event.kind.is_access() => {}
                Ok(_) | Err(_) => signal.notify_one(),
            }
        };
        let watched = notify::recommended_watcher(handler).and_then(|mut watcher| {
            for root in roots {
                watcher.watch(watched(root), RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        let watcher = watched
            .inspect_err(|error| {
                tracing::warn!("cannot watch files ({error}); looking every {UNASKED:?} instead");
            })
            .ok();
        Self { _watcher: watcher, signal }
    }

    async fn changed(&mut self) {
        // Either outcome means: look.
        let _ = timeout(UNASKED, self.signal.notified()).await;
        let since = Instant::now();
        while since.elapsed() < LATEST && timeout(QUIET, self.signal.notified()).await.is_ok() {}
    }
}

/// A file is watched through its directory: editors put a new file in its place.
fn watched(root: &Path) -> &Path {
    match root.parent() {
        Some(parent) if root.is_file() && parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) if root.is_file() => parent,
        _ => root,
    }
}

/// Adds the files at or below `path`, and the directories that cannot be listed.
fn list(
    path: &Path,
    depth: usize,
    found: &mut BTreeSet<PathBuf>,
    unlisted: &mut Vec<(PathBuf, String)>,
) {
    let mut fail = |reason: String| unlisted.push((path.to_owned(), reason));
    if depth > MAX_DEPTH {
        return fail(format!("more than {MAX_DEPTH} directories in each other"));
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            if depth == 0 || is_configuration(path) {
                found.insert(path.to_owned());
            }
            return;
        }
        Ok(_) => {}
        // A symlink into nothing, below a root.
        Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return fail(format!("cannot be read: {error}")),
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return fail(format!("cannot be listed: {error}")),
    };
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            list(&entry.path(), depth + 1, found, unlisted);
        }
    }
}

fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn service(name: &str, port: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n"
        )
    }

    fn names(set: &ObjectSet) -> Vec<&str> {
        set.objects.iter().map(|object| object.metadata.name.as_str()).collect()
    }

    #[test]
    fn trees_are_read_without_hidden_files_and_other_things() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        fs::write(root.path().join("b/c/x.yml"), service("two", "1")).unwrap();
        fs::write(root.path().join("a.yaml"), service("one", "1")).unwrap();
        fs::write(root.path().join("README.md"), "# text").unwrap();
        fs::write(root.path().join(".git/x.yaml"), "[").unwrap();
        symlink(root.path(), root.path().join("b/circle")).unwrap();
        let set = Directory::new([root.path().join("a.yaml"), root.path().join("b/c")]).load();
        assert_eq!((names(&set), set.failures.len()), (vec!["one", "two"], 0));
        let circle = Directory::new([root.path().to_owned()]).load();
        assert!(!circle.objects.is_empty());
    }

    #[test]
    fn what_breaks_keeps_its_last_good_state() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.yaml");
        let mut directory = Directory::new([root.path().to_owned()]);
        fs::write(&file, [service("one", "1"), service("two", "2")].concat()).unwrap();
        assert_eq!(names(&directory.load()), ["one", "two"]);

        for broken in ["kind: [", "", " \n"] {
            fs::write(&file, broken).unwrap();
            let set = directory.load();
            assert_eq!(names(&set), ["one", "two"], "{broken}");
            assert!(matches!(set.failures[..], [Failure::File { kept: 2, .. }]), "{set:?}");
        }

        fs::write(&file, [service("one", "many"), service("three", "x")].concat()).unwrap();
        let set = directory.load();
        assert_eq!(names(&set), ["one"], "the rest of the file is taken");
        let kept = |failure: &Failure| matches!(failure, Failure::Object { kept: true, .. });
        assert_eq!(set.failures.iter().map(kept).collect::<Vec<_>>(), [true, false]);

        fs::remove_file(&file).unwrap();
        let set = directory.load();
        assert!(set.objects.is_empty() && set.failures.is_empty(), "{set:?}");
    }

    #[test]
    fn a_root_that_vanishes_keeps_everything() {
        let root = tempfile::tempdir().unwrap();
        let (tree, aside) = (root.path().join("tree"), root.path().join("aside"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a.yaml"), service("one", "1")).unwrap();
        let mut directory = Directory::new([tree.clone()]);
        directory.load();
        fs::rename(&tree, &aside).unwrap();
        let set = directory.load();
        assert_eq!(names(&set), ["one"]);
        assert!(matches!(set.failures[..], [Failure::File { kept: 1, .. }]), "{set:?}");
        fs::rename(&aside, &tree).unwrap();
        assert!(directory.load().failures.is_empty());
    }

    #[tokio::test]
    async fn changes_come_as_complete_sets() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.yaml"), service("one", "1")).unwrap();
        let mut directory = Directory::new([root.path().to_owned()]);
        assert_eq!(names(&directory.next().await), ["one"]);
        fs::write(root.path().join("b.yaml"), service("two", "1")).unwrap();
        let set = timeout(PATIENCE, directory.next()).await.unwrap();
        assert_eq!(names(&set), ["one", "two"]);
        fs::remove_file(root.path().join("a.yaml")).unwrap();
        let set = timeout(PATIENCE, directory.next()).await.unwrap();
        assert_eq!(names(&set), ["two"]);
    }
}
