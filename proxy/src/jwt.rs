//! JSON web tokens: where requests carry them, what they say, who signed them, and the keys to tell.
//!
//! All but [`remote`] is pure: time and keys are arguments. What a worker remembers of an issuer is a
//! [`ProviderState`].

pub mod cache;
pub mod claim;
pub mod extract;
pub mod failure;
pub mod remote;
pub mod token;
pub mod verify;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use self::cache::TokenCache;
use self::remote::{RemoteKeys, RemoteSets};
use crate::config::HashMap;
use crate::config::jwt::{KeySource, Provider};

pub use failure::Failure;
pub use token::Token;

/// What one worker knows of all providers.
#[derive(Debug)]
pub struct Providers {
    known: RefCell<HashMap<*const Provider, Rc<ProviderState>>>,
    sets: Arc<RemoteSets>,
}

/// What one worker knows of a provider.
#[derive(Debug)]
pub struct ProviderState {
    /// As long as this is here, nothing else has its address.
    config: Weak<Provider>,
    /// Tokens that were found good.
    pub tokens: RefCell<TokenCache>,
    /// Its keys, if they are fetched.
    pub remote: Option<Arc<RemoteKeys>>,
}

impl Providers {
    /// Knows nothing yet; fetched keys are those of `sets`.
    pub fn new(sets: Arc<RemoteSets>) -> Self {
        Self { known: RefCell::default(), sets }
    }

    /// What is known of `provider`, which outlives changes of the configuration that leave it alone.
    pub fn state(&self, provider: &Arc<Provider>) -> Rc<ProviderState> {
        let mut known = self.known.borrow_mut();
        if let Some(state) = known.get(&Arc::as_ptr(provider)) {
            return Rc::clone(state);
        }
        known.retain(|_, state| state.config.strong_count() > 0);
        let state = Rc::new(ProviderState {
            config: Arc::downgrade(provider),
            tokens: RefCell::new(TokenCache::new(provider.cache)),
            remote: match &provider.keys {
                KeySource::Local(_) => None,
                KeySource::Remote(remote) => Some(self.sets.get(remote)),
            },
        });
        known.insert(Arc::as_ptr(provider), Rc::clone(&state));
        state
    }
}
