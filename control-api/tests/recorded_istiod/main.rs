//! What a real istiod told its proxies, for the input it had: ours must say the same, save what is explained.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clusters;
mod inbound;
mod listeners_and_routes;
mod recording;
