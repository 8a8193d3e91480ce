//! Upgraded streams (WebSocket and others): both sides switch protocols, then bytes are copied.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::finish::Finish;
use super::router::InFlight;
use super::stream::Stream;
use crate::config::access_log::LogKind;
use crate::config::http::UpgradeConfig;
use crate::drain::Phase;
use crate::net::copy::{self, End, Meter, Side, Until};
use crate::pool::ResponseBody;
use crate::telemetry::response_flags::ResponseFlags;

/// Most bytes held in either direction for a side that is slow to take them.
const BUFFER: usize = 64 * 1024;

/// The protocol a request asks to switch to (RFC 9110, section 7.8); none if it asks for none. `h2c` is
/// none either: whoever switches to it unseen smuggles requests past this proxy, so it is served as if
/// it had not been asked for, as in Envoy.
pub fn requested(headers: &HeaderMap) -> Option<&str> {
    let wants = headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    if !wants {
        return None;
    }
    let protocol = headers.get(UPGRADE)?.to_str().ok()?.trim();
    let mut wanted = protocol.split(',').map(str::trim);
    let h2c = wanted.any(|protocol| protocol.eq_ignore_ascii_case("h2c"));
    (!protocol.is_empty() && !h2c).then_some(protocol)
}

/// Whether `protocol` may be switched to: what the route says goes before what the connection manager says.
pub fn allowed(protocol: &str, route: &[UpgradeConfig], manager: &[UpgradeConfig]) -> bool {
    let find = |list: &[UpgradeConfig]| {
        let entry = list.iter().find(|entry| entry.upgrade_type.eq_ignore_ascii_case(protocol));
        entry.map(|entry| entry.enabled)
    };
    find(route).or_else(|| find(manager)).unwrap_or(false)
}

/// Turns an extended CONNECT (RFC 8441) into the HTTP/1.1 upgrade it stands for; false if it is none.
pub fn from_extended_connect(request: &mut Parts, random: &mut fastrand::Rng) -> bool {
    let Some(protocol) = request.extensions.remove::<Protocol>() else { return false };
    let Ok(upgrade) = HeaderValue::from_str(protocol.as_str()) else { return false };
    request.method = Method::GET;
    request.headers.insert(UPGRADE, upgrade);
    request.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    // HTTP/2 clients have no use for the key; HTTP/1.1 servers insist on one.
    if protocol.as_str().eq_ignore_ascii_case("websocket")
        && let Ok(key) = HeaderValue::try_from(websocket_key(random))
    {
        request.headers.entry(SEC_WEBSOCKET_KEY).or_insert(key);
    }
    true
}

/// Turns the upstream's agreement to an upgrade into the answer to an extended CONNECT.
pub fn to_extended_connect<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
}

/// Sixteen random bytes in base64 (RFC 6455, section 4.1).
fn websocket_key(random: &mut fastrand::Rng) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = random.u128(..);
    let digit = |bits: u128| char::from(DIGITS[(bits & 63) as usize]);
    // 128 bits are 21 digits of six and one of two.
    let mut key: String = (0..21).map(|at| digit(bits >> (122 - 6 * at))).collect();
    key.push(digit(bits << 4 & 0x30));
    key + "=="
}

/// Copies between both sides once they have switched, `until` the stream is over.
pub async fn tunnel(
    client: OnUpgrade,
    server: OnUpgrade,
    until: Until,
    idle: Option<Duration>,
    body: ResponseBody,
    in_flight: InFlight,
    mut finish: Finish,
) {
    let stream = Rc::clone(finish.stream());
    let stats = &stream.served.stats;
    stats.downstream_cx_upgrades_total.inc();
    stats.downstream_cx_upgrades_active.inc();
    let ended = match tokio::try_join!(client, server) {
        Ok((client, server)) => {
            if stream.served.config().log_options.on_tunnel {
                stream.log(LogKind::TunnelEstablished);
            }
            copy(TokioIo::new(client), TokioIo::new(server), until, idle, &stream).await
        }
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = ended {
        if error.kind() == io::ErrorKind::TimedOut {
            stream.flag(ResponseFlags::STREAM_IDLE_TIMEOUT);
            stream.set_details("stream_idle_timeout");
        }
        tracing::debug!(%error, "an upgraded stream broke off");
    }
    stats.downstream_cx_upgrades_active.dec();
    drop(body);
    in_flight.completed();
    finish.completed();
}

async fn copy(
    mut client: TokioIo<Upgraded>,
    mut server: TokioIo<Upgraded>,
    until: Until,
    idle: Option<Duration>,
    stream: &Stream,
) -> io::Result<()> {
    let meter = Tunnel(stream);
    let copying = async {
        let ended = copy::copy(&mut client, &mut server, until, BUFFER, &meter).await;
        ended.map(drop).map_err(|broken| broken.error)
    };
    let silence = async {
        let Some(limit) = idle else { return std::future::pending().await };
        loop {
            let due = stream.quiet_since() + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
        }
    };
    tokio::select! {
        result = copying => result,
        () = silence => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved in time")),
        () = stream.connection.control().reached(Phase::Closing) => {
            Err(io::Error::other("the proxy shuts down"))
        }
    }
}

/// Counts what passes on the stream.
struct Tunnel<'a>(&'a Stream);

impl Meter for Tunnel<'_> {
    fn read(&self, side: Side, bytes: usize) {
        self.0.touch();
        if side == Side::Upstream {
            self.0.sent(bytes);
        }
    }

    fn wrote(&self, side: Side, bytes: usize) {
        self.0.touch();
        if side == Side::Upstream {
            self.0.received(bytes);
        }
    }

    fn paused(&self, _: Side, _: usize) {}

    fn resumed(&self, _: Side, _: usize) {}
}

impl End for TokioIo<Upgraded> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn is_plain(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, enabled: bool) -> UpgradeConfig {
        UpgradeConfig { upgrade_type: name.into(), enabled }
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, "websocket".parse().unwrap());
        assert_eq!(requested(&headers), None);
        headers.insert(CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        assert_eq!(requested(&headers), Some("websocket"));
        headers.insert(UPGRADE, "H2C".parse().unwrap());
        assert_eq!(requested(&headers), None);
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade() {
        let mut request = http::Request::connect("https://a.test/chat").body(()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (mut parts, ()) = request.into_parts();
        assert!(from_extended_connect(&mut parts, &mut fastrand::Rng::with_seed(7)));
        assert_eq!((parts.method.as_str(), requested(&parts.headers)), ("GET", Some("websocket")));
        let key = parts.headers[SEC_WEBSOCKET_KEY].to_str().unwrap();
        assert!(key.len() == 24 && key.ends_with("=="), "{key}");
        assert!(!from_extended_connect(&mut parts, &mut fastrand::Rng::new()));
    }

    #[test]
    fn the_route_decides_before_the_connection_manager() {
        let manager = [entry("websocket", true)];
        assert!(allowed("WebSocket", &[], &manager));
        assert!(!allowed("WebSocket", &[entry("websocket", false)], &manager));
        assert!(allowed("other", &[entry("other", true)], &manager));
        assert!(!allowed("other", &[], &manager));
    }
}
