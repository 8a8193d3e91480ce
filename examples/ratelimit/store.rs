//! Where counts are: in this process, or in Redis, where many processes share them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// How long Redis may take for one count.
const PATIENCE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(crate) enum Store {
    /// Counts, and when they end, in seconds since 1970.
    Memory(Mutex<HashMap<String, (u64, u64)>>),
    /// The address of a Redis, and a connection to it, if there is one.
    Redis(SocketAddr, Mutex<Option<BufStream<TcpStream>>>),
}

impl Store {
    /// Counts in this process.
    pub(crate) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// Counts in the Redis at `address`.
    pub(crate) fn redis(address: SocketAddr) -> Self {
        Self::Redis(address, Mutex::default())
    }

    /// Adds `hits` to the count called `key`, which ends at `end` (in seconds since 1970), and says what it is then.
    pub(crate) async fn add(&self, key: &str, hits: u64, end: u64) -> Result<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match self {
            Self::Memory(counts) => {
                let mut counts = counts.lock().await;
                if !counts.contains_key(key) {
                    counts.retain(|_, (_, end)| *end > now);
                }
                let (count, _) = counts.entry(key.to_owned()).or_insert((0, end));
                *count = count.saturating_add(hits);
                Ok(*count)
            }
            Self::Redis(address, connection) => {
                let mut connection = connection.lock().await;
                let seconds = end.saturating_sub(now).max(1);
                let counting = async {
                    let mut open = match connection.take() {
                        Some(open) => open,
                        None => connect(*address).await?,
                    };
                    let count = count(&mut open, key, hits, seconds).await?;
                    anyhow::Ok((open, count))
                };
                // One that fails is not used again.
                let (open, count) = tokio::time::timeout(PATIENCE, counting)
                    .await
                    .context("Redis takes too long")??;
                *connection = Some(open);
                Ok(count)
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<BufStream<TcpStream>> {
    let connection = TcpStream::connect(address).await;
    let connection = connection.with_context(|| format!("no Redis at {address}"))?;
    connection.set_nodelay(true)?;
    Ok(BufStream::new(connection))
}

/// Two commands at once: the count, and how long it is kept.
async fn count(
    redis: &mut BufStream<TcpStream>,
    key: &str,
    hits: u64,
    seconds: u64,
) -> Result<u64> {
    let (hits, seconds) = (hits.to_string(), seconds.to_string());
    for command in [["INCRBY", key, &hits], ["EXPIRE", key, &seconds]] {
        redis.write_all(format!("*{}\r\n", command.len()).as_bytes()).await?;
        for word in command {
            redis.write_all(format!("${}\r\n{word}\r\n", word.len()).as_bytes()).await?;
        }
    }
    redis.flush().await?;
    let count = number(redis).await?;
    number(redis).await?;
    Ok(count)
}

async fn number(redis: &mut BufStream<TcpStream>) -> Result<u64> {
    let mut line = String::new();
    redis.read_line(&mut line).await?;
    match line.trim_end().strip_prefix(':').map(str::parse) {
        Some(Ok(number)) => Ok(number),
        _ => bail!("Redis said {:?}", line.trim_end()),
    }
}
