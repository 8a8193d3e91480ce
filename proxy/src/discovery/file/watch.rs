//! Tells when a watched file may have changed: written in place, moved over, or reached through a symlink
//! that was switched, as Kubernetes does with mounted volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A change is looked at when nothing more happened for this long: a file written in place is complete then.
const QUIET: Duration = Duration::from_millis(50);
/// A change is looked at after this long even if more keeps happening.
const LATEST: Duration = Duration::from_millis(500);
/// Everything is looked at this often in case no event came: network file systems, replaced directories.
const UNASKED: Duration = Duration::from_secs(10);
/// Most symlinks followed from one path.
const MAX_LINKS: usize = 40;

/// Watches the directories of a set of files.
pub(in crate::discovery) struct Watch {
    watcher: Option<RecommendedWatcher>,
    interest: Arc<Mutex<Interest>>,
    signal: Arc<Notify>,
    /// The watched directories; a directory is another one once its inode is.
    directories: BTreeMap<PathBuf, Inode>,
    /// When the first event came that has not been reported.
    since: Option<Instant>,
}

type Inode = (u64, u64);

/// What the operating system's events are compared with.
#[derive(Debug, Default)]
struct Interest {
    paths: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
}

impl Interest {
    fn concerns(&self, event: &notify::Event) -> bool {
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        if matches!(event.kind, EventKind::Access(_)) && event.kind != written {
            return false;
        }
        event.paths.iter().any(|path| {
            self.paths.contains(path)
                || path.parent().is_some_and(|parent| self.directories.contains(parent))
        })
    }
}

impl Watch {
    /// A watch of nothing yet. Without the operating system's help it only looks now and then.
    pub(in crate::discovery) fn new() -> Self {
        let interest: Arc<Mutex<Interest>> = Arc::default();
        let signal: Arc<Notify> = Arc::default();
        let handler = {
            let (interest, signal) = (Arc::clone(&interest), Arc::clone(&signal));
            move |event: notify::Result<notify::Event>| match event {
                Ok(event) if !interest.lock().concerns(&event) => {}
                // An error means lost events: look, to be sure.
                Ok(_) | Err(_) => signal.notify_one(),
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| {
                tracing::warn!("cannot watch files ({error}); looking every {UNASKED:?} instead");
            })
            .ok();
        Self { watcher, interest, signal, directories: BTreeMap::new(), since: None }
    }

    /// Watches these files, and everything in these directories, instead of what was watched before.
    pub(in crate::discovery) fn follow(
        &mut self,
        files: &BTreeSet<PathBuf>,
        directories: &BTreeSet<PathBuf>,
    ) {
        let paths: BTreeSet<PathBuf> = files.iter().flat_map(|file| links(file)).collect();
        let directories: BTreeSet<PathBuf> =
            directories.iter().filter_map(|directory| absolute(directory).ok()).collect();
        let wanted: BTreeMap<PathBuf, Inode> = paths
            .iter()
            .filter_map(|path| path.parent().map(Path::to_owned))
            .chain(directories.iter().cloned())
            .filter_map(|directory| inode(&directory).map(|inode| (directory, inode)))
            .collect();
        *self.interest.lock() = Interest { paths, directories };
        let Some(watcher) = &mut self.watcher else { return };
        for (directory, inode) in &self.directories {
            if wanted.get(directory) != Some(inode) {
                // It may be gone already, and its watch with it.
                let _ = watcher.unwatch(directory);
            }
        }
        for (directory, inode) in &wanted {
            if self.directories.get(directory) != Some(inode)
                && let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive)
            {
                let directory = directory.display();
                tracing::warn!(
                    "cannot watch {directory} ({error}); looking every {UNASKED:?} instead"
                );
            }
        }
        self.directories = wanted;
    }

    /// Waits until something watched may have changed and has come to rest. May be dropped while waiting:
    /// no change is lost.
    pub(in crate::discovery) async fn changed(&mut self) {
        let since = match self.since {
            Some(since) => since,
            None => {
                // Either outcome means: look.
                let _ = timeout(UNASKED, self.signal.notified()).await;
                *self.since.insert(Instant::now())
            }
        };
        while since.elapsed() < LATEST && timeout(QUIET, self.signal.notified()).await.is_ok() {}
        self.since = None;
    }
}

/// The path and every symlink on the way to what it stands for: a change of any of them changes the file.
fn links(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(mut path) = absolute(path) else { return found };
    for _ in 0..MAX_LINKS {
        found.insert(path.clone());
        let link = path.ancestors().find_map(|step| Some((step, step.read_link().ok()?)));
        let Some((step, target)) = link else { break };
        found.insert(step.to_owned());
        let rest = path.strip_prefix(step).unwrap_or(Path::new(""));
        let resolved = step.parent().unwrap_or(Path::new("/")).join(target);
        path = if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) };
    }
    found
}

fn inode(directory: &Path) -> Option<Inode> {
    let metadata = std::fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Long enough for an event, shorter than looking unasked.
    const PATIENCE: Duration = Duration::from_secs(5);

    fn watch(file: &Path) -> Watch {
        let mut watch = Watch::new();
        watch.follow(&[file.to_owned()].into(), &BTreeSet::new());
        watch
    }

    #[tokio::test]
    async fn writes_and_moves_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.yaml");
        fs::write(&file, "a").unwrap();
        let mut watch = watch(&file);

        fs::write(&file, "b").unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap();

        let other = directory.path().join("other");
        fs::write(&other, "c").unwrap();
        fs::rename(&other, &file).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_switched_symlink_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for version in ["v1", "v2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("x.yaml"), version).unwrap();
        }
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/x.yaml", root.join("x.yaml")).unwrap();
        let mut watch = watch(&root.join("x.yaml"));

        symlink("v2", root.join("..next")).unwrap();
        fs::rename(root.join("..next"), root.join("..data")).unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap();
        assert_eq!(fs::read_to_string(root.join("x.yaml")).unwrap(), "v2");
    }

    #[tokio::test]
    async fn reading_and_neighbours_are_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.yaml");
        fs::write(&file, "a").unwrap();
        let mut watch = watch(&file);
        fs::read(&file).unwrap();
        fs::write(directory.path().join("access.log"), "GET /").unwrap();
        assert!(timeout(Duration::from_millis(300), watch.changed()).await.is_err());
    }
}
