//! A scripted, authoritative name server on loopback that counts what it is asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::bootstrap::{socket_address, typed};

/// Seconds that an answer may be kept, unless said otherwise.
const TTL: u32 = 300;

/// A running name server, over UDP and TCP; dropping it closes both.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// What a name server does about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Script {
    Addresses(Vec<IpAddr>, u32),
    Fails,
    Silent,
    Held,
}

#[derive(Debug)]
struct Shared {
    /// By name, without the last dot. Any other name does not exist.
    zone: watch::Sender<HashMap<String, Script>>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug)]
struct Asked {
    name: String,
    kind: RecordType,
    over_tcp: bool,
}

impl DnsServer {
    /// A server that knows no name yet.
    pub async fn start() -> Self {
        // The number that UDP gets may be taken for TCP.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared { zone: watch::Sender::default(), asked: Mutex::default() });
        let tasks = [
            tokio::spawn(serve_udp(udp, Arc::clone(&shared))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&shared))),
        ];
        Self { address, shared, tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `name` has these addresses from now on; those of the other family do not exist.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        self.set_for(name, addresses, TTL);
    }

    /// As [`set`](Self::set), to be kept for `ttl` seconds.
    pub fn set_for(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.script(name, Script::Addresses(addresses, ttl));
    }

    /// `name` does not exist (NXDOMAIN).
    pub fn remove(&self, name: &str) {
        self.shared.zone.send_modify(|zone| drop(zone.remove(name)));
    }

    /// Questions about `name` fail (SERVFAIL).
    pub fn fail(&self, name: &str) {
        self.script(name, Script::Fails);
    }

    /// Questions about `name` are never answered.
    pub fn silence(&self, name: &str) {
        self.script(name, Script::Silent);
    }

    /// Questions about `name` are answered once it is set to something else.
    pub fn hold(&self, name: &str) {
        self.script(name, Script::Held);
    }

    fn script(&self, name: &str, script: Script) {
        self.shared.zone.send_modify(|zone| drop(zone.insert(name.to_owned(), script)));
    }

    /// How often `name` was asked for, whatever the type.
    pub fn queries(&self, name: &str) -> usize {
        self.shared.asked.lock().iter().filter(|asked| asked.name == name).count()
    }

    /// The types of record that `name` was asked for, in order, such as `A`.
    pub fn types(&self, name: &str) -> Vec<String> {
        let asked = self.shared.asked.lock();
        let named = asked.iter().filter(|asked| asked.name == name);
        named.map(|asked| asked.kind.to_string()).collect()
    }

    /// How often anything was asked for over TCP.
    pub fn queries_over_tcp(&self) -> usize {
        self.shared.asked.lock().iter().filter(|asked| asked.over_tcp).count()
    }

    /// The `typed_dns_resolver_config` of a proxy that asks only this server.
    pub fn resolver(&self) -> Value {
        self.resolver_with(json!({}))
    }

    /// As [`resolver`](Self::resolver), with more fields of `CaresDnsResolverConfig`.
    pub fn resolver_with(&self, mut config: Value) -> Value {
        config["resolvers"] = json!([socket_address(self.address)]);
        let name = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
        json!({"name": "envoy.network.dns_resolver.cares", "typed_config": typed(name, config)})
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut answering = JoinSet::new();
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
        let question = buffer[..length].to_vec();
        answering.spawn(async move {
            if let Some(answer) = shared.answer(&question, false).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
        while answering.try_join_next().is_some() {}
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut answering = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        answering.spawn(serve_stream(stream, Arc::clone(&shared)));
    }
}

/// Messages over TCP carry their length in front (RFC 1035, section 4.2.2).
async fn serve_stream(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length)];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(mut answer) = shared.answer(&question, true).await else { continue };
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        answer.splice(0..0, length);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// The answer to a message, if there will be one.
    async fn answer(&self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let asked = question.queries.first()?;
        let name = asked.name().to_ascii().trim_end_matches('.').to_lowercase();
        let kind = asked.query_type();
        self.asked.lock().push(Asked { name: name.clone(), kind, over_tcp });
        let mut zone = self.zone.subscribe();
        let is_decided = |zone: &HashMap<_, _>| zone.get(&name) != Some(&Script::Held);
        let script = zone.wait_for(is_decided).await.ok()?.get(&name).cloned();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.authoritative = true;
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = match &script {
            None => ResponseCode::NXDomain,
            Some(Script::Fails) => ResponseCode::ServFail,
            Some(Script::Silent) => return None,
            Some(_) => ResponseCode::NoError,
        };
        if let Some(Script::Addresses(addresses, ttl)) = script {
            let records = addresses.into_iter().filter_map(|address| record(asked, address, ttl));
            answer.add_answers(records);
        }
        answer.add_query(asked.clone());
        answer.to_vec().ok()
    }
}

/// The record of `address`, if it is of the kind asked for.
fn record(asked: &Query, address: IpAddr, ttl: u32) -> Option<Record> {
    let data = match (asked.query_type(), address) {
        (RecordType::A, IpAddr::V4(address)) => RData::A(A(address)),
        (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
        _ => return None,
    };
    Some(Record::from_rdata(asked.name().clone(), ttl, data))
}
