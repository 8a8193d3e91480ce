//! The PROXY header in front of a connection (Envoy `proxy_protocol`): read, obeyed, and taken away.

use std::io;

use tokio::net::TcpStream;

use super::peek::Peek;
use super::{Seen, refuse};
use crate::config::listener::filter::ProxyProtocol;
use crate::net::proxy_protocol::{self, Beginning, Version};
use crate::worker::Worker;

/// Takes the header, and the addresses in it.
pub(super) async fn run(
    config: &ProxyProtocol,
    worker: &Worker,
    stream: &TcpStream,
    peek: &mut Peek,
    seen: &mut Seen,
) -> io::Result<()> {
    let stats = worker.proxy_protocol_stats(&config.stat_prefix);
    let errors = &worker.shared.metrics.server().downstream_cx_proxy_proto_error;
    // As in Envoy: where a header may be missing, one that is not allowed is not looked for.
    let is_foreign = |bytes: &[u8]| {
        config.optional && config.disallowed.iter().any(|version| version.may_begin(bytes))
    };
    let parse = |bytes: &[u8]| match is_foreign(bytes) {
        true => Some(Beginning::Absent),
        false => proxy_protocol::parse(bytes),
    };
    let beginning = peek.until(stream, proxy_protocol::LONGEST, parse).await?;
    let version = |version| if version == Version::V1 { &stats.v1 } else { &stats.v2 };
    let header = match beginning {
        None | Some(Beginning::Absent) if config.optional => {
            stats.general.not_found_allowed.inc();
            return Ok(());
        }
        None | Some(Beginning::Absent) => {
            stats.general.not_found_disallowed.inc();
            errors.inc();
            return refuse("it has no PROXY header");
        }
        Some(Beginning::Malformed(found)) => {
            version(found).error.inc();
            errors.inc();
            return refuse("its PROXY header is malformed");
        }
        Some(Beginning::Header(header)) => header,
    };
    version(header.version).found.inc();
    if config.disallowed.contains(&header.version) {
        version(header.version).disallowed.inc();
        return refuse("the version of its PROXY header is not allowed");
    }
    peek.take(stream, header.length)?;
    if let Some((source, destination)) = header.addresses {
        seen.remote = source;
        if seen.local != destination {
            seen.restore(destination);
        }
    }
    let mut tlvs = header.tlvs;
    tlvs.retain(|tlv| config.passed_tlvs.contains(tlv.kind));
    seen.tlvs = (!tlvs.is_empty()).then(|| tlvs.into());
    Ok(())
}
