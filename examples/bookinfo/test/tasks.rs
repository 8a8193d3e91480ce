//! Istio's own book shop, unmodified: each file that Istio's task pages apply does what these say, and no page is lost
//! while files change.
//!
//! The files are not part of this repository: they are looked for in `SUITES_DIR`, else beside the workspace. With
//! `LOAD=full` each share is that of 10,000 pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, Reply};

use crate::running::{Mesh, reviewer};

/// Connections that read pages at the same time.
const CONNECTIONS: u64 = 8;
/// What the page says where reviews, or ratings, cannot be had.
const NO_REVIEWS: &str = "product reviews are currently unavailable";
const NO_RATINGS: &str = "Ratings service is currently unavailable";

/// Who served the reviews, and how often.
type Shares = BTreeMap<String, u64>;

fn samples() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let suites = std::env::var_os("SUITES_DIR").map_or_else(beside, PathBuf::from);
    let samples = suites.join("istio-samples/bookinfo");
    if samples.is_dir() {
        return Some(samples);
    }
    let skipped = format!("SKIPPED: no {}; set SUITES_DIR to where it is", samples.display());
    assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "{skipped}");
    eprintln!("{skipped}");
    None
}

/// How many pages tell a share.
fn pages() -> u32 {
    let full = std::env::var("LOAD").is_ok_and(|load| load == "full");
    if full { 10_000 } else { 400 }
}

/// Istio's book shop on this machine, with somebody who reads its page all the time.
struct Tasks {
    mesh: Mesh,
    networking: PathBuf,
    stop: Arc<AtomicBool>,
    reader: tokio::task::JoinHandle<()>,
    read: Arc<AtomicU64>,
    began: Instant,
}

impl Tasks {
    async fn begin(samples: &Path) -> Self {
        let networking = samples.join("networking");
        let base = [
            samples.join("platform/kube/bookinfo.yaml"),
            networking.join("bookinfo-gateway.yaml"),
            networking.join("destination-rule-all.yaml"),
        ];
        let mesh = Mesh::start(&base, 0).await;
        let (stop, read) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ended, count) = (Arc::clone(&stop), Arc::clone(&read));
        let client = mesh.client();
        let reader = tokio::spawn(async move {
            let mut connection = client.connect().await.unwrap();
            while !ended.load(Ordering::Relaxed) {
                whole(&connection.send(page(&client, "")).await.unwrap());
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { mesh, networking, stop, reader, read, began: Instant::now() }
    }

    fn apply(&self, file: &str) {
        let said = self.mesh.apply(&[self.networking.join(format!("virtual-service-{file}.yaml"))]);
        assert!(said.contains("7 of 7 proxies have it"), "{said}");
    }

    /// Who serves the reviews of so many pages.
    async fn shares(&self, user: &'static str, pages: u64) -> Shares {
        let client = self.mesh.client();
        let readers = (0..CONNECTIONS).map(|reader| {
            let (client, read) = (client.clone(), Arc::clone(&self.read));
            let own = pages / CONNECTIONS + u64::from(reader < pages % CONNECTIONS);
            tokio::spawn(async move {
                let mut connection = client.connect().await.unwrap();
                let mut shares = Shares::new();
                for _ in 0..own {
                    let reply = connection.send(page(&client, user)).await.unwrap();
                    *shares.entry(whole(&reply)).or_default() += 1;
                    read.fetch_add(1, Ordering::Relaxed);
                }
                shares
            })
        });
        let mut all = Shares::new();
        for reader in readers.collect::<Vec<_>>() {
            for (version, number) in reader.await.unwrap() {
                *all.entry(version).or_default() += number;
            }
        }
        all
    }

    /// That reviews come from these versions, in these percentages.
    async fn split(&self, file: &str, expected: &[(&str, f64)]) {
        self.apply(file);
        let number = pages();
        let shares = self.shares("", number.into()).await;
        println!("{file:<16} {shares:?}");
        assert_eq!(shares.len(), expected.len(), "{file}: {shares:?}");
        for (version, percent) in expected {
            let seen =
                100.0 * f64::from(u32::try_from(shares[*version]).unwrap()) / f64::from(number);
            // Each page is drawn by lot: five standard deviations are off once in two million times.
            let tolerance = 5.0 * (percent * (100.0 - percent) / f64::from(number)).sqrt();
            assert!((seen - percent).abs() <= tolerance, "{file}: {version} {seen} %");
        }
    }

    /// That jason's reviews come from one version, and everybody else's from another.
    async fn by_user(&self, file: &str, jason: &str, others: &str) {
        self.apply(file);
        for (user, version) in [("jason", jason), ("", others)] {
            let shares = self.shares(user, u64::from(pages() / 10)).await;
            println!("{file:<16} {user} {shares:?}");
            assert_eq!(shares.keys().collect::<Vec<_>>(), [version], "{file}, of {user:?}");
        }
    }

    /// What jason sees now, and after how long; all others see reviews at once.
    async fn broken(&self, file: &str) -> (Reply, Duration) {
        self.apply(file);
        let began = Instant::now();
        let seen = self.mesh.page("jason").await;
        let took = began.elapsed();
        let shares = self.shares("", 20).await;
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["reviews-v1"]);
        println!("{file:<16} jason's page after {took:?}");
        (seen, took)
    }

    /// That no page was lost.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.await.unwrap();
        let (read, took) = (self.read.load(Ordering::Relaxed), self.began.elapsed());
        println!("{read} pages in {took:?}, all whole");
    }
}

fn page(client: &Client, user: &str) -> harness::client::Call {
    client.get("/productpage").header("cookie", &format!("session={user}"))
}

/// That the page has all its parts; who served the reviews.
fn whole(page: &Reply) -> String {
    let (text, version) = (page.text(), reviewer(page));
    let is_whole = !text.contains(NO_REVIEWS) && !text.contains(NO_RATINGS);
    assert!(page.status == 200 && is_whole && !version.is_empty(), "{}: {text}", page.status);
    assert!(text.contains("<dd>PublisherA</dd>"), "{text}");
    version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istios_tasks_do_what_their_pages_say() {
    let Some(samples) = samples() else { return };
    let tasks = Tasks::begin(&samples).await;

    // Request routing.
    tasks.by_user("all-v1", "reviews-v1", "reviews-v1").await;
    assert!(!tasks.mesh.page("jason").await.text().contains('★'));
    tasks.by_user("reviews-test-v2", "reviews-v2", "reviews-v1").await;
    assert!(tasks.mesh.page("jason").await.text().contains("<span class=\"black\">★"));

    // Fault injection: the delay shows that the page does not wait as long as reviews do.
    let (page, took) = tasks.broken("ratings-test-delay").await;
    assert!(page.text().contains(NO_REVIEWS), "{}", page.text());
    assert!((Duration::from_secs(6)..Duration::from_secs(9)).contains(&took), "{took:?}");
    let (page, _) = tasks.broken("ratings-test-abort").await;
    assert!(page.text().contains(NO_RATINGS), "{}", page.text());
    tasks.apply("all-v1");

    // Traffic shifting.
    tasks.split("reviews-90-10", &[("reviews-v1", 90.0), ("reviews-v2", 10.0)]).await;
    tasks.split("reviews-80-20", &[("reviews-v1", 80.0), ("reviews-v2", 20.0)]).await;
    tasks.split("reviews-50-v3", &[("reviews-v1", 50.0), ("reviews-v3", 50.0)]).await;
    tasks.split("reviews-v2-v3", &[("reviews-v2", 50.0), ("reviews-v3", 50.0)]).await;
    tasks.split("reviews-v3", &[("reviews-v3", 100.0)]).await;
    assert!(tasks.mesh.page("").await.text().contains("<span class=\"red\">★"));
    tasks.by_user("reviews-jason-v2-v3", "reviews-v2", "reviews-v3").await;
    tasks.end().await;
}
