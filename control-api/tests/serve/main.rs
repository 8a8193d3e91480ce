//! Serving proxies, over real connections: who gets what, and what is not sent.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ctl;
mod limits;
mod many;
mod plane;
mod program;
mod pushing;
mod secure;
mod sidecar;
mod status;
