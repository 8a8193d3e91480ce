//! The tokens that a worker has found good of late, so that a signature is not checked for every request.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use super::Token;
use crate::config::HashMap;
use crate::config::jwt::jwks::Jwks;

/// Good tokens by their text. Of two generations the older one is forgotten when the newer one is full; who is asked
/// for moves to the newer one.
#[derive(Debug)]
pub struct TokenCache {
    newer: HashMap<Box<str>, Good>,
    older: HashMap<Box<str>, Good>,
    /// Of each generation.
    capacity: usize,
    /// Of a token, in bytes.
    longest: usize,
}

/// A token whose signature was good.
#[derive(Debug)]
struct Good {
    token: Rc<Token>,
    /// By one of these keys. When they are replaced, the token has to prove itself anew.
    keys: Arc<Jwks>,
}

impl TokenCache {
    /// An empty cache for about so many tokens, and tokens of so many bytes at most.
    pub fn new((size, longest): (usize, usize)) -> Self {
        let (newer, older) = (HashMap::default(), HashMap::default());
        Self { newer, older, capacity: size.div_ceil(2), longest }
    }

    /// What the token with this text says, if one of `keys` is known to have signed it.
    pub fn get(&mut self, text: &str, keys: &Arc<Jwks>) -> Option<Rc<Token>> {
        if !self.newer.contains_key(text) {
            let (text, good) = self.older.remove_entry(text)?;
            self.put(text, good);
        }
        let good = self.newer.get(text)?;
        Arc::ptr_eq(&good.keys, keys).then(|| Rc::clone(&good.token))
    }

    /// Remembers that one of `keys` has signed `token`.
    pub fn insert(&mut self, text: &str, token: Rc<Token>, keys: Arc<Jwks>) {
        if text.len() <= self.longest {
            self.put(text.into(), Good { token, keys });
        }
    }

    fn put(&mut self, text: Box<str>, good: Good) {
        if self.newer.len() >= self.capacity {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(text, good);
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::Signed;
    use super::*;

    fn token() -> Rc<Token> {
        Signed::parse("eyJhbGciOiJSUzI1NiJ9.e30.AA").unwrap().token
    }

    fn keys() -> Arc<Jwks> {
        Arc::new(Jwks { keys: Vec::new() })
    }

    #[test]
    fn a_token_is_known_as_long_as_its_keys_are() {
        let (mut cache, before) = (TokenCache::new((10, 3)), keys());
        cache.insert("abc", token(), Arc::clone(&before));
        assert!(cache.get("abc", &before).is_some());
        assert!(cache.get("abc", &keys()).is_none());
        assert!(cache.get("ab", &before).is_none());
        cache.insert("long", token(), Arc::clone(&before));
        assert!(cache.get("long", &before).is_none());
    }

    #[test]
    fn who_is_asked_for_stays_and_others_go() {
        let (mut cache, keys) = (TokenCache::new((10, 100)), keys());
        cache.insert("kept", token(), Arc::clone(&keys));
        for number in 0..1000 {
            cache.insert(&number.to_string(), token(), Arc::clone(&keys));
            assert!(cache.get("kept", &keys).is_some(), "{number}");
            assert!(cache.newer.len() + cache.older.len() <= 10);
        }
        assert!(cache.get("0", &keys).is_none());
        assert!(cache.get("999", &keys).is_some());
    }
}
