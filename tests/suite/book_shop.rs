//! Istio's tasks with the book shop, done by meshes that real Envoys and our proxies make up together: whoever is where,
//! all of it is accepted, everything between proxies is mutual TLS, and visitors notice nothing of the changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::book_shop::{GATEWAY, Page, WORKLOADS};
use harness::eventually::eventually_true;
use harness::{BookShop, Client, Program, Reply, Traffic};

use crate::suites;

/// Aggregated streams, as `ApiConfigSource.api_type` names the variants.
const STATE_OF_THE_WORLD: &str = "GRPC";
const INCREMENTAL: &str = "DELTA_GRPC";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_everywhere() {
    tasks(INCREMENTAL, |_| Program::Envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_as_gateway_before_our_sidecars() {
    tasks(STATE_OF_THE_WORLD, |it| one_if(it == GATEWAY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_gateway_before_envoys() {
    tasks(STATE_OF_THE_WORLD, |it| one_if(it != GATEWAY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_each_by_turns() {
    let ours = ["productpage-v1", "ratings-v1", "reviews-v2"];
    tasks(INCREMENTAL, |it| one_if(!ours.contains(&it))).await;
}

/// In full length only, as it takes a minute for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_in_its_turn_is_another_than_all_others() {
    if is_full() {
        for workload in WORKLOADS {
            tasks(INCREMENTAL, |it| one_if(it == workload)).await;
            tasks(STATE_OF_THE_WORLD, |it| one_if(it != workload)).await;
        }
    }
}

fn one_if(envoy: bool) -> Program {
    if envoy { Program::Envoy } else { Program::Outrigger }
}

fn is_full() -> bool {
    std::env::var("LOAD").is_ok_and(|load| load == "full")
}

/// All of Istio's tasks, one after the other.
async fn tasks(variant: &str, program: impl Fn(&str) -> Program) {
    let Some(samples) = suites::find("istio-samples/bookinfo") else { return };
    if !Program::Envoy.is_installed() {
        return;
    }
    let shop = Shop::open(samples, variant, program).await;
    let mut traffic = Traffic::of([shop.visitor()], visit, reviews);
    traffic.may_be(&["v1"]);
    assert_eq!(shop.for_user("jason").await.reviews, "v1");
    by_user(&shop).await;
    faults(&shop).await;

    traffic.may_be(&["v1", "v2", "v3"]);
    shop.apply("virtual-service-reviews-50-v3.yaml").await;
    shop.shares(&[("v1", 50), ("v3", 50)]).await;
    shop.apply("virtual-service-reviews-80-20.yaml").await;
    shop.shares(&[("v1", 80), ("v2", 20)]).await;
    shop.apply("virtual-service-reviews-90-10.yaml").await;
    shop.shares(&[("v1", 90), ("v2", 10)]).await;
    shop.apply("virtual-service-reviews-v3.yaml").await;
    shop.until("everyone to have v3", None, |page| page.reviews == "v3").await;
    traffic.may_be(&["v3"]);
    traffic.until(20, Duration::ZERO).await;
    traffic.end().await;

    shop.0.assert_everything_is_accepted().await;
    is_all_mutual_tls(&shop.0).await;
}

/// Jason has other reviews than everybody else.
async fn by_user(shop: &Shop) {
    shop.apply("virtual-service-reviews-test-v2.yaml").await;
    shop.until("jason to have v2", Some("jason"), |page| page.reviews == "v2").await;
    assert_eq!(shop.for_user("james").await.reviews, "v1");
}

/// Ratings are late, or not there, for Jason alone.
async fn faults(shop: &Shop) {
    let (late, delay) = if is_full() { ("7s", 7) } else { ("1s", 1) };
    let delay = Duration::from_secs(delay);
    shop.apply_changed("virtual-service-ratings-test-delay.yaml", ("7s", late)).await;
    shop.until("a late page", Some("jason"), |page| page.reviews == "v2" && page.took >= delay)
        .await;
    let other = shop.for_user("james").await;
    assert!(other.took < delay, "{other:?}");
    shop.apply("virtual-service-ratings-test-abort.yaml").await;
    let without = |page: &Page| page.reviews == "v2 without ratings";
    shop.until("a page without ratings", Some("jason"), without).await;
    assert_eq!(shop.for_user("james").await.reviews, "v1");
    shop.apply("virtual-service-all-v1.yaml").await;
    shop.until("everything as before", Some("jason"), |page| page.reviews == "v1").await;
}

/// Every service was called by the sidecar of the one that asks it, with its certificate; nobody else gets in.
async fn is_all_mutual_tls(shop: &BookShop) {
    let gateway = format!("spiffe://cluster.local/ns/istio-system/sa/{GATEWAY}");
    let of = |app: &str| format!("spiffe://cluster.local/ns/default/sa/bookinfo-{app}");
    for workload in WORKLOADS {
        let caller = match workload.split('-').next().unwrap() {
            "productpage" => gateway.clone(),
            "ratings" => of("reviews"),
            _ => of("productpage"),
        };
        let callers = shop.callers(workload);
        let uri = format!("URI={caller}");
        assert!(!callers.is_empty(), "{workload}");
        assert!(callers.iter().all(|it| it.contains(&uri)), "{workload}: {:?}", callers.last());
        let in_plain_text = Client::http1(shop.pod(workload)).get("/health").try_send().await;
        assert!(in_plain_text.is_err(), "{workload}: {in_plain_text:?}");
    }
}

fn visit(visitor: &Client) -> harness::client::Call {
    visitor.get("/productpage")
}

fn reviews(reply: &Reply) -> String {
    let reviews = reply.header("x-backend");
    reviews.filter(|_| reply.status == 200).unwrap_or_else(|| reply.status.to_string())
}

/// The shop, to which Istio's samples are applied as with `kubectl apply`.
struct Shop(BookShop, PathBuf);

impl Shop {
    async fn open(samples: PathBuf, variant: &str, program: impl Fn(&str) -> Program) -> Self {
        let networking = samples.join("networking");
        let platform = read(&samples, "platform/kube/bookinfo.yaml");
        let mut files = BTreeMap::from([("bookinfo.yaml".to_owned(), platform)]);
        for name in
            ["bookinfo-gateway.yaml", "destination-rule-all.yaml", "virtual-service-all-v1.yaml"]
        {
            files.extend(objects(&read(&networking, name)));
        }
        let files = files.iter().map(|(name, text)| (name.as_str(), text.clone()));
        Self(BookShop::open(files, variant, program).await, networking)
    }

    /// Applies a sample, and waits until every proxy has accepted it.
    async fn apply(&self, sample: &str) {
        self.apply_changed(sample, ("", "")).await;
    }

    /// The same, with something in it replaced.
    async fn apply_changed(&self, sample: &str, (from, to): (&str, &str)) {
        let text = read(&self.1, sample);
        let text = if from.is_empty() { text } else { text.replace(from, to) };
        let objects = objects(&text);
        for (name, text) in &objects {
            if std::fs::read_to_string(self.0.control.folder().join(name)).ok().as_ref()
                != Some(text)
            {
                self.0.apply(name, text).await;
            }
        }
    }

    fn visitor(&self) -> Client {
        self.0.visitor()
    }

    async fn for_user(&self, user: &str) -> Page {
        self.0.page(Some(user)).await
    }

    /// Waits for such a page.
    async fn until(&self, what: &str, user: Option<&str>, is_it: impl Fn(&Page) -> bool) {
        eventually_true(what, async || {
            let page = self.0.page(user).await;
            assert_eq!(page.status, 200, "{page:?}");
            is_it(&page)
        })
        .await;
    }

    /// Checks that visitors get reviews in these shares, in percent, and no others.
    async fn shares(&self, expected: &[(&str, u32)]) {
        let requests: u32 = if is_full() { 10_000 } else { 400 };
        // What is being changed may still be as before for an instant after it was accepted.
        let known = |page: &Page| expected.iter().any(|(version, _)| page.reviews == *version);
        for _ in 0..5 {
            self.until("the new shares", None, known).await;
        }
        let found = self.count(requests).await;
        let total: u32 = found.values().sum();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (version, percent) in expected {
            let (share, due) =
                (f64::from(found[*version]) / f64::from(total), f64::from(*percent) / 100.0);
            // Each visitor is drawn by lot: five standard deviations are off once in two million times.
            let off = 5.0 * (due * (1.0 - due) / f64::from(total)).sqrt();
            assert!((share - due).abs() <= off, "{version}: {share} instead of {due}: {found:?}");
        }
    }

    /// What so many visitors get.
    async fn count(&self, requests: u32) -> BTreeMap<String, u32> {
        const AT_A_TIME: u32 = 8;
        let mut visitors = tokio::task::JoinSet::new();
        for _ in 0..AT_A_TIME {
            let visitor = self.visitor();
            visitors.spawn(async move {
                let mut open = visitor.connect().await.unwrap();
                let mut found = Vec::new();
                for _ in 0..requests / AT_A_TIME {
                    found.push(reviews(&open.send(visit(&visitor)).await.unwrap()));
                }
                found
            });
        }
        let mut counts = BTreeMap::new();
        for version in visitors.join_all().await.into_iter().flatten() {
            *counts.entry(version).or_default() += 1;
        }
        counts
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The objects of a file, as files of their own: one that is applied again takes the place of what it was.
fn objects(text: &str) -> BTreeMap<String, String> {
    let documents = text.split("\n---").filter(|it| it.contains("kind:"));
    let file = |document: &str| {
        let after = |key: &str| {
            document.split_once(key).unwrap().1.lines().next().unwrap().trim().to_owned()
        };
        format!("{}-{}.yaml", after("kind:"), after("name:"))
    };
    documents.map(|document| (file(document), document.to_owned())).collect()
}
