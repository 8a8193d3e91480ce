//! Traces: contexts in headers, the decision which requests are traced, spans and their way to a collector.

pub mod context;
pub mod decision;
pub mod reporter;
pub mod span;

pub use context::{Propagation, TraceContext};
pub use decision::Reason;
pub use reporter::{Identity, Reporter, Reporters};
