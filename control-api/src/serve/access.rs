//! Who may connect, and the secrets that only some may have.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use certs::SpiffeId;
use prost_types::Any;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;
use xds::server::Session;
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::ResourceType;

use super::auth::{Authenticator, Caller, Unauthenticated};
use super::cache::Told;
use super::connection::Peer;
use super::sds::{ROOTS, Secrets};
use crate::model::Mesh;
use crate::translate::proxy::Proxy;

/// How callers are known, and what they get.
#[derive(Debug)]
pub struct Access {
    /// Whom the control plane believes.
    pub authenticator: Arc<Authenticator>,
    /// Makes and finds secrets.
    pub secrets: Secrets,
    /// Changes when secrets have to be made anew: the authority is another one.
    pub renewed: watch::Sender<()>,
}

impl Access {
    /// Who asks for what this proxy is told. Nobody is known where there is no TLS and no token: that is enough for
    /// everything but secrets.
    ///
    /// # Errors
    /// If the caller is not who it says, or says nothing where it has to.
    pub fn caller(
        &self,
        peer: &Peer,
        metadata: &MetadataMap,
        proxy: &Proxy,
    ) -> Result<Option<Caller>, Status> {
        let caller = match self.authenticator.caller(peer, metadata, SystemTime::now()) {
            Ok(caller) => caller,
            Err(Unauthenticated::Nothing) => match self.claimed(peer, proxy) {
                Some(caller) => caller,
                None if peer.encrypted => return Err(Unauthenticated::Nothing.into()),
                None => return Ok(None),
            },
            Err(error) => return Err(error.into()),
        };
        if caller.may_be(proxy) {
            return Ok(Some(caller));
        }
        let Proxy { namespace, service_account, .. } = proxy;
        Err(Status::permission_denied(format!(
            "{} may not have the configuration of {namespace}/{service_account}",
            caller.id
        )))
    }

    fn claimed(&self, peer: &Peer, proxy: &Proxy) -> Option<Caller> {
        let domain = &self.authenticator.trust_domain;
        let Proxy { namespace, service_account, .. } = proxy;
        let id = SpiffeId::of_service_account(domain, namespace, service_account).ok()?;
        self.authenticator.claim(peer, id)
    }
}

/// The secrets of one stream.
#[derive(Debug)]
pub(super) struct Held {
    caller: Caller,
    proxy: Arc<Proxy>,
    /// For which names and which mesh they were found.
    of: Option<(Vec<String>, u64)>,
    due: Option<SystemTime>,
    snapshot: Arc<Snapshot>,
    /// Which bundle of roots is among them; none if it was not asked for.
    bundle: Option<u64>,
}

impl Held {
    pub(super) fn new(caller: Caller, proxy: Arc<Proxy>) -> Self {
        Self { caller, proxy, of: None, due: None, snapshot: Arc::default(), bundle: None }
    }

    /// Which bundle of roots is among them; none if it was not asked for.
    pub(super) fn bundle(&self) -> Option<u64> {
        self.bundle
    }

    /// They have to be found anew.
    pub(super) fn forget(&mut self) {
        self.of = None;
    }

    /// When they have to be found anew, even if nothing changes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let left = self.due?.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Instant::now() + left)
    }

    /// What the proxy is told, with the secrets that it asks for and may have.
    pub(super) fn with(
        &mut self,
        access: &Access,
        mesh: &Mesh,
        told: &Told,
        session: &Session,
    ) -> Arc<Snapshot> {
        let names: Vec<String> =
            session.names(ResourceType::Secret).map(ToOwned::to_owned).collect();
        if names.is_empty() {
            return Arc::clone(&told.snapshot);
        }
        let now = SystemTime::now();
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due || self.of.as_ref() != Some(&(names.clone(), told.number)) {
            let asks = names.iter().any(|name| name == ROOTS);
            // Read before what it counts: at worst it says less than the proxy has.
            self.bundle = asks.then(|| access.secrets.generation());
            let wanted = names.iter().map(String::as_str);
            let answer = access.secrets.answer(mesh, &self.proxy, &self.caller, wanted, now);
            let packed = answer.secrets.iter().filter_map(|secret| Any::from_msg(secret).ok());
            let entries = packed.filter_map(|body| Entry::new(body).ok()).map(Arc::new);
            self.snapshot = Arc::new(told.snapshot.with(entries));
            self.due = answer.due;
            self.of = Some((names, told.number));
        }
        Arc::clone(&self.snapshot)
    }
}
