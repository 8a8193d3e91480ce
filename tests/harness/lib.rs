//! What the scenario suite is written with: real proxy processes, scripted backends, plain clients.
//!
//! A scenario reads in three steps, and runs unchanged against Outrigger and a real Envoy:
//!
//! ```ignore
//! let app = Backend::echo("app").await;
//! let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
//!     .cluster(Cluster::new("app").endpoint(&app))
//!     .start(program)
//!     .await;
//! assert_eq!(proxy.get("/").send().await.status, 200);
//! ```
//!
//! Nothing here waits for a fixed time: [`eventually`](eventually::eventually) polls until a
//! deadline that is generous enough for a busy machine, so a slow run is slow and not red.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails a test by panicking")]

pub mod backend;
pub mod book_shop;
pub mod bootstrap;
pub mod client;
pub mod collector;
pub mod control_plane;
pub mod discovery_files;
mod discovery_methods;
pub mod dns;
pub mod eventually;
pub mod grpc;
pub mod issuer;
pub mod istio_ca;
pub mod load;
pub mod log_collector;
pub mod management;
pub mod netns;
pub mod pilot_agent;
pub mod pki;
pub mod port;
pub mod program;
pub mod proxy;
pub mod relay;
pub mod reply;
pub mod scripted_management;
pub mod traffic;
pub mod yaml;

pub use backend::Backend;
pub use backend::answer::Answer;
pub use backend::everywhere::Everywhere;
pub use backend::faulty::{Close, FaultyBackend};
pub use backend::tcp::TcpBackend;
pub use book_shop::BookShop;
pub use bootstrap::{Bootstrap, Cluster, Filters, Http, Listener, Route, Tcp, VirtualHost};
pub use client::Client;
pub use client::raw::RawConnection;
pub use control_plane::ControlPlane;
pub use dns::DnsServer;
pub use eventually::eventually;
pub use grpc::{AuthzServer, RateLimitServer};
pub use issuer::Issuer;
pub use istio_ca::IstioCa;
pub use log_collector::{AccessLogServer, LogCollector};
pub use management::ManagementServer;
pub use netns::Netns;
pub use pki::Pki;
pub use program::Program;
pub use proxy::Proxy;
pub use relay::Relay;
pub use reply::Reply;
pub use scripted_management::{ScriptedManagement, ScriptedStream};
pub use serde_json::{Value, json};
pub use traffic::Traffic;

/// How long anything in the suite may take before it counts as hung.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
