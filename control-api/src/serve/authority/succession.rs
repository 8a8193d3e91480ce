//! How one authority follows another: a root is trusted by everyone before it signs, and stays trusted for as long as
//! something that it signed is valid. The order is kept whatever the files do at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use certs::{Authority, Error, bundle};

/// Until when what was signed under a root is valid, in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    all: AtomicU64,
    /// What agents hold: they hear of roots with their next certificate only.
    agents: AtomicU64,
}

impl Ledger {
    /// A certificate was signed that is valid until `end`.
    pub(super) fn note(&self, end: SystemTime, by_agent: bool) {
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.all.fetch_max(end, Relaxed);
        if by_agent {
            self.agents.fetch_max(end, Relaxed);
        }
    }

    fn ends(of: &AtomicU64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(of.load(Relaxed))
    }
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, now.
    Stay,
    /// Have everyone trust these roots.
    Trust(String),
    /// Let this one sign.
    Sign(Arc<Authority>),
}

/// How far one authority has followed the other.
#[derive(Debug)]
pub(super) struct Succession {
    /// What the files ask for, when they could be used last.
    wish: Arc<Authority>,
    /// Roots that signed before, with the end of the last certificate under them.
    former: BTreeMap<String, SystemTime>,
    /// The longest life of a certificate. Who has not taken a bundle by then has none that is still valid.
    longest: Duration,
    /// When the last bundle was told.
    told: SystemTime,
    /// Until when agents may have a certificate that came with an older bundle.
    unaware: SystemTime,
    /// The proxies that were waited for when that was said last; none if it was not said.
    said: Option<Vec<String>>,
}

impl Succession {
    /// Nothing is under way.
    pub(super) fn new(authority: Arc<Authority>, longest: Duration) -> Self {
        let (former, said) = (BTreeMap::new(), None);
        let never = SystemTime::UNIX_EPOCH;
        Self { wish: authority, former, longest, told: never, unaware: never, said }
    }

    /// Notes what the files ask for; whether that is another authority, or other roots.
    pub(super) fn wish(&mut self, authority: Authority) -> bool {
        let text = |it: &Authority| it.path_pem() + &it.trust_pem() + &it.key_pem();
        let is_new = text(&authority) != text(&self.wish);
        if is_new {
            self.wish = Arc::new(authority);
        }
        is_new
    }

    /// What to do now, where `signer` signs and the roots in `trust` were told last.
    pub(super) fn step(
        &mut self,
        signer: &Arc<Authority>,
        trust: &str,
        ledger: &Ledger,
        now: SystemTime,
        lacking: impl FnOnce() -> Vec<String>,
    ) -> Result<Step, Error> {
        self.former.retain(|_, end| *end >= now);
        let wanted = self.trusted(signer, trust)?;
        if wanted != trust {
            tracing::info!("{} roots are trusted from now on", bundle::split(&wanted)?.len());
            (self.told, self.unaware) = (now, Ledger::ends(&ledger.agents));
            return Ok(Step::Trust(wanted));
        }
        if Arc::ptr_eq(&self.wish, signer) {
            return Ok(Step::Stay);
        }
        // An intermediate under the same root needs nobody's consent.
        let is_other_root = self.wish.root_pem() != signer.root_pem();
        if is_other_root && signer.validity().contains(now) && !self.may_sign(now, lacking) {
            return Ok(Step::Stay);
        }
        if is_other_root {
            self.former.insert(signer.root_pem().to_owned(), Ledger::ends(&ledger.all));
        }
        self.said = None;
        tracing::info!(is_other_root, "another authority signs from now on");
        Ok(Step::Sign(Arc::clone(&self.wish)))
    }

    /// All roots that are to be trusted: those of the files, the one that signs, and those that signed what may still
    /// be valid. In the order in which they came, so that what is the same remains the same text.
    fn trusted(&self, signer: &Authority, trust: &str) -> Result<String, Error> {
        let mut wanted = bundle::split(&self.wish.trust_pem())?;
        wanted.push(signer.root_pem().to_owned());
        wanted.extend(self.former.keys().cloned());
        let mut kept = bundle::split(trust)?;
        kept.retain(|root| wanted.contains(root));
        bundle::merge(&[&kept.concat(), &wanted.concat()])
    }

    /// Whether everyone trusts the root that is to sign, or is not waited for any longer.
    fn may_sign(&mut self, now: SystemTime, lacking: impl FnOnce() -> Vec<String>) -> bool {
        let waited = now.duration_since(self.told).unwrap_or_default();
        if waited > self.longest {
            return true;
        }
        let lacking = lacking();
        if lacking.is_empty() && now > self.unaware {
            return true;
        }
        // Once for each set of proxies, not at each look.
        if self.said.as_ref() != Some(&lacking) {
            let left = self.unaware.duration_since(now).unwrap_or_default().as_secs();
            let agents = format!("at most {left} s for agents, which hear of it as they renew");
            let proxies = format!("{} proxies: {}", lacking.len(), lacking.join(", "));
            let said = if lacking.is_empty() { agents } else { proxies };
            tracing::info!("a new root is trusted and does not sign yet: it waits for {said}");
            self.said = Some(lacking);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// An authority whose files change, and the proxies that trust in it.
    struct Trial {
        succession: Succession,
        signer: Arc<Authority>,
        trust: String,
        ledger: Arc<Ledger>,
        lacking: RefCell<Vec<String>>,
    }

    impl Trial {
        fn new(authority: Authority) -> Self {
            let (trust, signer) = (authority.trust_pem(), Arc::new(authority));
            let succession = Succession::new(Arc::clone(&signer), DAY);
            Self { succession, signer, trust, ledger: Arc::default(), lacking: RefCell::default() }
        }

        /// Goes as far as it goes.
        fn until_it_stays(&mut self, now: SystemTime) {
            loop {
                let lacking = || self.lacking.borrow().clone();
                let (signer, ledger) = (&self.signer, &self.ledger);
                match self.succession.step(signer, &self.trust, ledger, now, lacking).unwrap() {
                    Step::Stay => return,
                    Step::Trust(trust) => self.trust = trust,
                    Step::Sign(next) => {
                        assert!(self.trust.contains(next.root_pem()));
                        (self.signer, self.ledger) = (next, Arc::default());
                    }
                }
            }
        }

        fn signs(&self, root: &str) -> bool {
            self.signer.root_pem() == root
        }
    }

    fn root(name: &str) -> (Authority, String) {
        let root = Authority::self_signed(name).unwrap();
        let pem = root.root_pem().to_owned();
        (root, pem)
    }

    #[test]
    fn a_root_that_comes_at_once_is_trusted_first_and_the_old_one_goes_last() {
        let now = SystemTime::now();
        let ((old, old_pem), (new, new_pem)) = (root("old"), root("new"));
        let mut trial = Trial::new(old);
        trial.ledger.note(now + DAY, false);
        trial.lacking.borrow_mut().push("web.shop".into());
        assert!(trial.succession.wish(new));
        trial.until_it_stays(now);
        assert!(trial.signs(&old_pem), "a proxy does not trust the new one yet");
        assert_eq!(trial.trust, format!("{old_pem}{new_pem}"));
        trial.lacking.borrow_mut().clear();
        trial.until_it_stays(now);
        assert!(trial.signs(&new_pem));
        trial.until_it_stays(now + DAY - Duration::from_secs(1));
        assert_eq!(
            trial.trust,
            format!("{old_pem}{new_pem}"),
            "something under the old one is valid"
        );
        trial.until_it_stays(now + DAY + Duration::from_secs(1));
        assert_eq!(trial.trust, new_pem);
    }

    #[test]
    fn agents_and_those_who_never_answer_are_waited_for_as_long_as_certificates_live() {
        let now = SystemTime::now();
        let ((old, old_pem), (new, new_pem)) = (root("old"), root("new"));
        let mut trial = Trial::new(old);
        trial.ledger.note(now + DAY / 2, true);
        trial.succession.wish(new);
        trial.until_it_stays(now);
        assert!(trial.signs(&old_pem), "an agent has not heard of it");
        trial.until_it_stays(now + DAY / 2 + Duration::from_secs(1));
        assert!(trial.signs(&new_pem));
        let (next, next_pem) = root("next");
        trial.succession.wish(next);
        trial.lacking.borrow_mut().push("deaf.shop".into());
        let later = now + 2 * DAY;
        trial.until_it_stays(later);
        assert!(trial.signs(&new_pem));
        trial.until_it_stays(later + DAY + Duration::from_secs(1));
        assert!(trial.signs(&next_pem));
    }

    #[test]
    fn an_intermediate_is_replaced_at_once_and_a_wish_can_be_taken_back() {
        let now = SystemTime::now();
        let (old, old_pem) = root("root");
        let (first, second) = (old.intermediate("a").unwrap(), old.intermediate("b").unwrap());
        let (path, first_again) = (second.path_pem(), (first.path_pem(), first.key_pem()));
        let mut trial = Trial::new(first);
        trial.lacking.borrow_mut().push("web.shop".into());
        trial.succession.wish(second);
        trial.until_it_stays(now);
        assert_eq!(trial.signer.path_pem(), path);
        let (other, _) = root("other");
        trial.succession.wish(other);
        trial.until_it_stays(now);
        let back = Authority::from_pem(&first_again.0, &first_again.1).unwrap();
        trial.succession.wish(back);
        trial.until_it_stays(now);
        assert_eq!((trial.signer.path_pem(), &trial.trust), (first_again.0, &old_pem));
    }
}
