//! Where objects come from: a stream of complete sets, in which what is broken is replaced by its last good state.

pub mod directory;
pub mod settings;

use std::sync::Arc;

use xds::yaml::Position;

use crate::model::object::{Object, Unreadable};
use crate::yaml::Problem;

/// Somewhere that objects come from.
pub trait Source {
    /// Waits for the next complete set of objects: at first for what is there, then for every change.
    fn next(&mut self) -> impl Future<Output = ObjectSet> + Send;
}

/// All objects of a source at one moment.
#[derive(Debug, Clone, Default)]
pub struct ObjectSet {
    /// The objects, in the order of the source.
    pub objects: Vec<Arc<Object>>,
    /// What could not be read. Where it had been read before, `objects` has its last good state.
    pub failures: Vec<Failure>,
}

/// Something that could not be read.
#[derive(Debug, Clone)]
pub enum Failure {
    /// A whole file or directory.
    File {
        /// Its path.
        name: String,
        /// Where in its text.
        at: Option<Position>,
        /// What is wrong.
        problem: Problem,
        /// How many objects of its last good state stay.
        kept: usize,
    },
    /// One object of a file.
    Object {
        /// What is wrong with it.
        unreadable: Arc<Unreadable>,
        /// Whether its last good state stays.
        kept: bool,
    },
}
