//! Which filter chain a connection gets (Envoy `FilterChainMatch`).

use std::net::SocketAddr;

use crate::config::Invalid;
use crate::config::listener::FilterChainMatch;

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Where the client meant to connect to.
    pub destination: SocketAddr,
    /// Who the client is, as a PROXY header or the socket says.
    pub source: SocketAddr,
    /// Who the socket's other end is.
    pub direct_source: SocketAddr,
    /// The server name asked for, in lower case.
    pub server_name: Option<&'a str>,
    /// `tls` or `raw_buffer`; empty when nobody looked.
    pub transport_protocol: &'a str,
    /// The protocols offered by ALPN.
    pub application_protocols: &'a [Box<[u8]>],
}

/// The match rules of one listener, compiled.
#[derive(Debug)]
pub struct FilterChainMatcher {}

impl FilterChainMatcher {
    /// Compiles the rules of all chains, in configuration order; two chains with the same rule are refused.
    pub fn compile(rules: &[&FilterChainMatch]) -> Result<Self, Invalid> {
        let _ = rules;
        Ok(Self {})
    }

    /// The position of the chain that `facts` select.
    pub fn pick(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let _ = facts;
        None
    }
}
