//! What the connections that are made for a client show of it.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use crate::config::HashMap;
use crate::config::connecting::Connecting;
use crate::net::proxy_protocol::Tlv;

/// What may show of a client. The default is a connection that is made for nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Source and destination of its connection, to be told in a PROXY header.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Extensions of its own PROXY header that may be passed on.
    pub tlvs: Option<Rc<[Tlv]>>,
    /// The address that connections made for it come from.
    pub origin: Option<Origin>,
}

/// Where connections come from instead of this machine (Envoy `original_src`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The client's address, without its port.
    pub address: SocketAddr,
    /// The mark of the packets (`SO_MARK`); 0 for none.
    pub mark: u32,
}

/// A client's connection, for as long as it is there. What exists for clients alone ends with the last of them.
#[derive(Default)]
pub struct Presence {
    /// Who is told when it ends, by their places in memory (which nobody else has while they can be told).
    followers: RefCell<HashMap<usize, Weak<dyn Follower>>>,
}

/// What exists for clients alone.
pub trait Follower {
    /// A client is there, which was not before.
    fn comes(&self);

    /// A client is gone.
    fn goes(&self);
}

impl Presence {
    /// Tells `follower` of the client, now and when it goes.
    pub fn is_followed_by<F: Follower + 'static>(&self, follower: &Rc<F>) {
        let place = Rc::as_ptr(follower).addr();
        let mut followers = self.followers.borrow_mut();
        if followers.contains_key(&place) {
            return;
        }
        followers.retain(|_, follower| follower.strong_count() > 0);
        let weak: Weak<F> = Rc::downgrade(follower);
        followers.insert(place, weak);
        follower.comes();
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        for follower in self.followers.take().into_values() {
            if let Some(follower) = follower.upgrade() {
                follower.goes();
            }
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("followers", &self.followers.borrow().len()).finish()
    }
}

impl Client {
    /// Whether its port shows, so that nobody else can ever share its connections. Those that come from its address
    /// alone wait for the next client from there.
    pub fn is_alone(&self) -> bool {
        self.ends.is_some()
    }

    /// What shows of it at an endpoint that is reached in this way: clients of which the same shows may share
    /// connections.
    #[must_use]
    pub fn shown(&self, how: &Connecting) -> Self {
        match how.proxy_protocol {
            Some(_) => self.clone(),
            None => Self { ends: None, tlvs: None, origin: self.origin },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::connecting::ProxyProtocol;
    use crate::config::tlv::PassedTlvs;
    use crate::net::proxy_protocol::Version;

    #[test]
    fn only_endpoints_that_are_told_see_the_client() {
        let address = SocketAddr::from(([10, 9, 0, 2], 7));
        let origin = Some(Origin { address, mark: 1 });
        let client = Client { ends: Some((address, address)), tlvs: None, origin };
        let plain = Connecting::default();
        assert_eq!(client.shown(&plain), Client { origin, ..Client::default() });
        let header = ProxyProtocol {
            version: Version::V1,
            added_tlvs: Vec::new(),
            passed_tlvs: PassedTlvs::None,
        };
        let telling = Connecting { proxy_protocol: Some(Arc::new(header)), ..plain };
        assert_eq!(client.shown(&telling), client);
    }
}
