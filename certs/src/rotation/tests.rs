//! Rotation by itself, and three roots replaced while workloads talk to each other.

use proptest::prelude::*;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::*;
use crate::validity::DAY;
use crate::{Authority, Csr, Key, KeyKind, bundle, csr};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn verify(chain: &str, trust: &str, now: SystemTime) -> Result<(), webpki::Error> {
    let read = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect::<Vec<_>>()
    };
    let (chain, roots) = (read(chain), read(trust));
    let anchors: Vec<_> =
        roots.iter().map(|root| webpki::anchor_from_trusted_cert(root).unwrap()).collect();
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let leaf = EndEntityCert::try_from(&chain[0])?;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(algorithms, &anchors, &chain[1..], now, usage, None, None)?;
    }
    Ok(())
}

#[test]
fn a_certificate_is_renewed_around_half_of_its_life() {
    let validity = Validity { not_before: start(), not_after: start() + DAY };
    let rotation = Rotation::default();
    assert_eq!(rotation.due(validity, 0.5), start() + DAY / 2);
    let at =
        |hours: u32| rotation.decide(validity, Attempts::default(), start() + HOUR * hours, 0.5);
    assert!(!at(11).renew && at(12).renew && at(23).valid);
    assert!(at(25).renew && !at(25).valid, "an expired certificate is renewed, however late");
    assert_eq!(at(0).sleep, rotation.longest_sleep);
}

#[test]
fn a_certificate_that_is_due_at_once_is_not_asked_for_in_a_loop() {
    let validity = Validity { not_before: start() - DAY, not_after: start() + MINUTE };
    let attempts = Attempts { failed: 0, last: Some(start()) };
    let decision = Rotation::default().decide(validity, attempts, start(), 1.0);
    assert_eq!((decision.renew, decision.sleep), (false, Duration::from_secs(1)));
}

#[test]
fn an_authority_that_is_down_for_45_percent_of_life_harms_nobody() {
    let rotation = Rotation::default();
    let validity = Validity { not_before: start(), not_after: start() + DAY };
    for chance in [0.0, 0.3, 1.0] {
        let back = rotation.due(validity, chance) + DAY.mul_f64(0.44);
        let (mut now, mut attempts, mut asked) = (start(), Attempts::default(), 0);
        loop {
            let decision = rotation.decide(validity, attempts, now, chance);
            assert!(decision.valid, "it expired before the authority was asked again");
            if decision.renew {
                asked += 1;
                if now >= back {
                    break;
                }
                attempts = Attempts { failed: attempts.failed + 1, last: Some(now) };
            }
            now += decision.sleep;
        }
        assert!(now < back + rotation.longest_pause, "it was asked soon after it was back");
        assert!(asked < 400, "{asked} attempts are a flood");
    }
}

proptest! {
    #[test]
    fn no_decision_is_later_than_what_it_waits_for(
        life in 1..10_000_000_u64, at in -1_000_000..20_000_000_i64, failed in any::<u32>(),
        last in proptest::option::of(-1_000_000..20_000_000_i64), chance in 0.0..=1.0_f64,
    ) {
        let moment = |offset: i64| start() + 100 * DAY + Duration::from_secs((offset + 1_000_000).unsigned_abs());
        let validity = Validity { not_before: moment(0), not_after: moment(0) + Duration::from_secs(life) };
        let attempts = Attempts { failed, last: last.map(moment) };
        let (rotation, now) = (Rotation::default(), moment(at));
        let decision = rotation.decide(validity, attempts, now, chance);
        let due = rotation.due(validity, chance);
        prop_assert!(due > validity.not_before && due < validity.not_after);
        prop_assert_eq!(decision.renew, decision.sleep.is_zero());
        prop_assert!(decision.sleep <= rotation.longest_sleep);
        prop_assert!(!decision.renew || now >= due);
        let paced = attempts.last.is_some_and(|last| last <= now && now < last + rotation.longest_pause);
        prop_assert!(decision.renew || now < due || paced);
    }
}

/// A workload whose certificate and trust come by themselves, the trust with a delay.
struct Workload {
    id: crate::SpiffeId,
    chain: String,
    trust: String,
    chance: f64,
    validity: Validity,
}

impl Workload {
    fn renew(&mut self, authority: &Authority, now: SystemTime) {
        let key = Key::generate(KeyKind::default()).unwrap();
        let csr = Csr::from_pem(&csr::build(&key, &self.id).unwrap()).unwrap();
        self.chain = authority.sign(&csr, &self.id, None, now).unwrap();
        self.validity = bundle::validities(&self.chain).unwrap()[0];
    }
}

/// A root with a year of life. All have one name, as roots that are replaced do.
fn new_root(now: SystemTime) -> Authority {
    let life = Validity::from(now, 365 * DAY);
    Authority::self_signed_for("root", life, KeyKind::default()).unwrap()
}

/// A new intermediate: it is replaced too, every few hours.
fn new_signer(root: &Authority, now: SystemTime) -> Authority {
    let life = Validity::from(now, 60 * DAY);
    root.intermediate_for("signer", life, KeyKind::default()).unwrap()
}

#[test]
fn three_roots_are_replaced_and_every_certificate_verifies_at_every_step() {
    let (rotation, mut state, mut now) = (Rotation::default(), RootRotation::Settled, start());
    let mut root = new_root(now);
    let mut signer = new_signer(&root, now);
    let (mut trust, mut next, mut replaced) = (root.root_pem().to_owned(), None, 0);
    let mut workloads: Vec<_> = (0..3_u8)
        .map(|n| Workload {
            id: format!("spiffe://cluster.local/ns/shop/sa/w{n}").parse().unwrap(),
            chain: String::new(),
            trust: trust.clone(),
            chance: f64::from(n) / 2.0,
            validity: Validity::default(),
        })
        .collect();
    workloads.iter_mut().for_each(|workload| workload.renew(&signer, now));
    let stopped = workloads[0].chain.clone();
    let mut hours = 0;
    while replaced < 3 {
        now += HOUR;
        hours += 1;
        if hours % 7 == 0 {
            signer = new_signer(&root, now);
        }
        // One workload hears of the trust in each round: they never all change at once.
        if let Some(late) = workloads.iter_mut().find(|workload| workload.trust != trust) {
            late.trust.clone_from(&trust);
        }
        let everyone = workloads.iter().all(|workload| workload.trust == trust);
        match state {
            RootRotation::Settled if everyone => {
                let new = new_root(now);
                trust = bundle::merge(&[root.root_pem(), new.root_pem()]).unwrap();
                (next, state) = (Some(new), state.trust().unwrap());
            }
            RootRotation::Trusting => {
                if let Ok(signing) = state.sign(everyone, now) {
                    (root, state) = (next.take().unwrap(), signing);
                    signer = new_signer(&root, now);
                }
            }
            _ => {
                if let Ok(settled) = state.forget(DAY, now) {
                    (trust, state, replaced) = (root.root_pem().to_owned(), settled, replaced + 1);
                }
            }
        }
        for workload in &mut workloads {
            let chance = workload.chance;
            if rotation.decide(workload.validity, Attempts::default(), now, chance).renew {
                workload.renew(&signer, now);
            }
        }
        for (one, other) in
            workloads.iter().flat_map(|one| workloads.iter().map(move |other| (one, other)))
        {
            verify(&one.chain, &other.trust, now)
                .unwrap_or_else(|error| panic!("{} at {state:?}: {error}", one.id));
        }
    }
    verify(&stopped, &trust, start() + HOUR).unwrap_err();
}
