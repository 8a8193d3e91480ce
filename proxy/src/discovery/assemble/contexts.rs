//! TLS contexts from one set to the next: kept while nothing they read changes, and kept in use when their
//! files no longer fit together.

use std::fmt;
use std::sync::Arc;

use crate::config::tls::{CommonTls, DownstreamTls, UpstreamTls};
use crate::config::{HashMap, Invalid, Name};
use crate::tls::client::ClientTls;
use crate::tls::secrets::{Fingerprint, Secrets};
use crate::tls::server::ServerTls;

/// A TLS configuration that can be built.
pub(super) trait Context: PartialEq + fmt::Debug {
    type Tls: fmt::Debug;
    fn common(&self) -> &CommonTls;
    fn build(&self, secrets: &Secrets, place: &Place) -> Result<Self::Tls, Invalid>;
}

impl Context for DownstreamTls {
    type Tls = ServerTls;

    fn common(&self) -> &CommonTls {
        &self.common
    }

    fn build(&self, secrets: &Secrets, _: &Place) -> Result<ServerTls, Invalid> {
        match secrets.awaits(&self.common) {
            true => ServerTls::awaiting_secrets(self),
            false => ServerTls::build(self, secrets),
        }
    }
}

impl Context for UpstreamTls {
    type Tls = ClientTls;

    fn common(&self) -> &CommonTls {
        &self.common
    }

    fn build(&self, secrets: &Secrets, (cluster, _): &Place) -> Result<ClientTls, Invalid> {
        if secrets.awaits(&self.common) {
            return ClientTls::awaiting_secrets(self);
        }
        let tls = ClientTls::build(self, secrets)?;
        if !tls.verifies() {
            tracing::warn!(
                %cluster,
                "TLS to this cluster accepts ANY certificate: set validation_context.trusted_ca, \
                 or whoever is on the network path can read and change the traffic"
            );
        }
        Ok(tls)
    }
}

/// Where a context is used: the listener's or cluster's name, and the chain or path in it.
pub(super) type Place = (Name, Name);

/// The contexts of one linked set.
#[derive(Debug)]
pub(super) struct Contexts<C: Context>(HashMap<Place, Built<C>>);

#[derive(Debug)]
struct Built<C: Context> {
    config: Arc<C>,
    fingerprint: Fingerprint,
    tls: Arc<C::Tls>,
}

impl<C: Context> Default for Contexts<C> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

/// What became of a context.
pub(super) enum Outcome<T> {
    /// It is what its configuration and files say.
    Current(Arc<T>),
    /// Its files changed and cannot be used: the context built before stays.
    Kept(Arc<T>, Invalid),
    /// It cannot be built.
    Failed(Invalid),
}

impl<C: Context> Contexts<C> {
    /// Builds the context of `place`, or takes it over from `last` if nothing it reads has changed.
    pub(super) fn link(
        &mut self,
        last: &Self,
        place: Place,
        config: &Arc<C>,
        secrets: &Secrets,
    ) -> Outcome<C::Tls> {
        let fingerprint = secrets.fingerprint(config.common());
        let old = last.0.get(&place).filter(|old| old.config == *config);
        let (fingerprint, outcome) = match old {
            Some(old) if old.fingerprint == fingerprint => {
                (fingerprint, Outcome::Current(Arc::clone(&old.tls)))
            }
            old => match (config.build(secrets, &place), old) {
                (Ok(tls), _) => (fingerprint, Outcome::Current(Arc::new(tls))),
                // With the old fingerprint it is tried again as long as the files differ from it.
                (Err(error), Some(old)) => {
                    (old.fingerprint, Outcome::Kept(Arc::clone(&old.tls), error))
                }
                (Err(error), None) => return Outcome::Failed(error),
            },
        };
        if let Outcome::Current(tls) | Outcome::Kept(tls, _) = &outcome {
            let (config, tls) = (Arc::clone(config), Arc::clone(tls));
            self.0.insert(place, Built { config, fingerprint, tls });
        }
        outcome
    }
}
