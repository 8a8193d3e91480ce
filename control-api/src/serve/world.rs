//! The mesh as it is served at a moment, with a number by which people and proxies tell one from the next.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::model::Mesh;
use crate::translate::index::Index;
use crate::validate::finding::Findings;

/// A mesh that is served.
#[derive(Debug, Clone)]
pub struct World {
    /// Counts from 1; 0 stands for no mesh yet.
    pub number: u64,
    /// What is in it.
    pub mesh: Arc<Index>,
    /// What is wrong with it.
    pub findings: Arc<Findings>,
    /// When it was published.
    pub at: SystemTime,
    /// When the first of the changes came that made it.
    pub since: Instant,
}

impl World {
    /// Before anything was read.
    pub(super) fn nothing() -> Self {
        Self {
            number: 0,
            mesh: Arc::new(Index::new(Mesh::default())),
            findings: Arc::default(),
            at: SystemTime::now(),
            since: Instant::now(),
        }
    }
}
