//! The hash by which a request finds its endpoint, for clusters that balance by hash, and the cookies made for it.
//! As in Envoy, what counts is the request as the route has changed it.

use std::cell::RefCell;

use http::HeaderValue;

use super::Plan;
use super::request::Outgoing;
use crate::cluster::LocalCluster;
use crate::config::cluster::LbPolicy;
use crate::net::listening::known;
use crate::route::{cookie, hash};

/// What hash policies make of a request.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    /// None if no policy applies, or the cluster does not balance by hash.
    pub(super) hash: Option<u64>,
    /// `set-cookie` values for the response.
    pub(super) cookies: Vec<HeaderValue>,
}

impl Hashed {
    pub(super) fn new(plan: &Plan<'_>, cluster: &LocalCluster, outgoing: &Outgoing<'_>) -> Self {
        let policies = &plan.action.hash_policies;
        let by_hash = matches!(cluster.spec().config.lb_policy, LbPolicy::Hash(_));
        if policies.is_empty() || !by_hash {
            return Self::default();
        }
        let downstream = &plan.stream.connection.downstream;
        let cookies = RefCell::new(Vec::new());
        let keys = hash::Keys {
            head: &outgoing.head.view(),
            client: known(plan.stream.client.get().ip()),
            cookie: &|wanted| {
                let value = hash::cookie_value(downstream.remote, downstream.local);
                let (ttl, path) = (wanted.ttl?, &wanted.path);
                let set = cookie::set(&wanted.name, &value, ttl, path, &wanted.attributes)?;
                cookies.borrow_mut().push(set);
                Some(value)
            },
        };
        let hash = hash::of(policies, &keys);
        Self { hash, cookies: cookies.into_inner() }
    }
}
