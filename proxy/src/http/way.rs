//! Where the route table sends a request: found before its filters run, done after them.

use std::sync::Arc;

use super::stream::{Head, Stream};
use crate::config::route::{Action, Route, RouteAction};
use crate::net::listening::known;
use crate::route::weighted::{self, Target};
use crate::route::{Circumstances, Found, RouteTable, TlsPresence};

/// What the route table says about a request.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The table.
    pub table: &'a RouteTable,
    /// Where in it the request's route is.
    pub found: Found,
    /// What is to be done.
    pub to: Destination<'a>,
}

/// See [`Way`].
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// The virtual host has no route for it.
    Nowhere,
    /// The client has to come again over https.
    Https,
    /// The route answers it.
    Answer(&'a Arc<Route>),
    /// It is forwarded.
    Cluster(&'a Arc<Route>, &'a RouteAction, Target<'a>),
}

impl<'a> Way<'a> {
    /// Finds the way of the request with this `head`, which came as `forwarded_proto` says; none if there is no
    /// virtual host for it.
    pub fn find(stream: &'a Stream, head: &'a Head, forwarded_proto: &str) -> Option<Self> {
        let table = stream.table()?;
        let tls = stream.connection.downstream.tls.as_ref();
        let tls = tls.map_or(TlsPresence::default(), |peer| TlsPresence {
            presented: peer.presented(),
            validated: peer.validated(),
        });
        let dynamic = stream.dynamic();
        let circumstances = Circumstances { tls, metadata: dynamic.metadata() };
        let view = head.view();
        let found = table.find(&view, stream.random(), circumstances)?;
        let to = match table.route(found) {
            _ if table.wants_https(found, forwarded_proto, stream.internal.get()) => {
                Destination::Https
            }
            None => Destination::Nowhere,
            Some(route) => match &route.action {
                Action::Forward(action) => {
                    let client = known(stream.client.get().ip());
                    let target = weighted::target(action, &view, client, stream.random());
                    Destination::Cluster(route, action, target)
                }
                Action::Redirect(_) | Action::DirectResponse(_) => Destination::Answer(route),
            },
        };
        Some(Self { table, found, to })
    }

    /// Which weighted cluster was chosen, if the route has weights.
    pub fn weighted(&self) -> Option<usize> {
        match self.to {
            Destination::Cluster(_, _, target) => target.weighted,
            Destination::Nowhere | Destination::Https | Destination::Answer(_) => None,
        }
    }
}
