//! What control planes and proxies answer on their HTTP interfaces.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing on the same machine or a forwarded port takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The JSON at a path of `HOST:PORT`.
pub(super) async fn json(address: &str, path: &str) -> Result<Value> {
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    let fetched = timeout(PATIENCE, get(address, path)).await;
    let (status, body) = fetched.with_context(|| format!("{address} does not answer"))??;
    let parsed: Result<Value, _> = serde_json::from_slice(&body);
    match (status, parsed) {
        (StatusCode::OK, Ok(value)) => Ok(value),
        (StatusCode::OK, Err(error)) => bail!("{address}{path} is no JSON: {error}"),
        (status, Ok(value)) => {
            let known = value["connected"].as_array().into_iter().flatten();
            let known: Vec<&str> = known.filter_map(Value::as_str).collect();
            bail!("{address}: {} (connected: {})", text(&value["error"], status), shown(&known))
        }
        (status, Err(_)) => {
            bail!("{address}{path}: {status}: {}", String::from_utf8_lossy(&body).trim())
        }
    }
}

fn text(error: &Value, status: StatusCode) -> String {
    error.as_str().map_or_else(|| status.to_string(), ToOwned::to_owned)
}

fn shown(names: &[&str]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

async fn get(address: &str, path: &str) -> Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| {
        format!("cannot reach {address}: is it running? (--control, --admin say where)")
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(HOST, address).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, body))
    };
    tokio::select! {
        exchanged = exchange => Ok(exchanged?),
        ended = connection => {
            ended?;
            bail!("{address} hung up")
        }
    }
}
