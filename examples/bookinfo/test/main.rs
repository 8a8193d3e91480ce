//! The book shop: its services alone, a whole mesh of them in one command, and the tasks that Istio shows with it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mesh;
mod running;
mod services;
mod tasks;
