//! What is read, taken and refused as a whole: the bootstrap, and each file of resources.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use xds::yaml::Error as Located;

use crate::discovery::file::bootstrap::BootstrapFile;
use crate::discovery::file::{FileKey, ResourceFile};

/// Something that is read as a whole, and taken or refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::discovery) enum Source {
    Bootstrap,
    File(FileKey),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap => f.write_str("bootstrap"),
            Self::File(key) => key.fmt(f),
        }
    }
}

/// Why the present content of a source is not in use.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::discovery) struct Refusal {
    pub(in crate::discovery) digest: u64,
    pub(in crate::discovery) errors: Vec<Located>,
    pub(super) fault: Fault,
    pub(in crate::discovery) at: SystemTime,
}

/// What is wrong with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no configuration at all, for example half a file.
    Text,
    /// Something that it says is wrong.
    Content,
    /// It does not fit the rest, and may fit later.
    Fit,
}

/// Decoded sources that are to replace their last versions.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) bootstrap: Option<Arc<BootstrapFile>>,
    pub(super) files: BTreeMap<FileKey, Arc<ResourceFile>>,
}

impl Candidates {
    pub(super) fn sources(&self) -> impl Iterator<Item = (Source, u64)> {
        let bootstrap = self.bootstrap.iter().map(|file| (Source::Bootstrap, file.digest));
        let files = self.files.iter();
        bootstrap.chain(files.map(|(key, file)| (Source::File(key.clone()), file.digest)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bootstrap.is_none() && self.files.is_empty()
    }

    pub(super) fn remove(&mut self, source: &Source) {
        match source {
            Source::Bootstrap => self.bootstrap = None,
            Source::File(key) => drop(self.files.remove(key)),
        }
    }
}
