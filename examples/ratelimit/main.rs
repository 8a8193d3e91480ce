//! A rate limit service for proxies that speak `envoy.service.ratelimit.v3`: limits from a YAML file, counts in memory or
//! in Redis.

mod limits;
mod service;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use tonic::transport::Server;
use xds::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;

use self::limits::Limits;
use self::service::Service;
use self::store::Store;

/// Counts requests for proxies.
#[derive(Debug, Parser)]
struct Options {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The limits.
    #[arg(long)]
    config: PathBuf,
    /// Where Redis is; without it, counts are this process's own.
    #[arg(long)]
    redis: Option<SocketAddr>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let text = std::fs::read_to_string(&options.config)
        .with_context(|| format!("cannot read {}", options.config.display()))?;
    let limits = Limits::read(&options.config.display().to_string(), &text)?;
    let store = options.redis.map_or_else(Store::memory, Store::redis);
    let service = RateLimitServiceServer::new(Service::new(limits, store));
    eprintln!("listening at {}", options.listen);
    Server::builder().add_service(service).serve(options.listen).await?;
    Ok(())
}
