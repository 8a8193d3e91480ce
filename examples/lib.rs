//! What the examples that start several processes have in common.

pub mod processes;
