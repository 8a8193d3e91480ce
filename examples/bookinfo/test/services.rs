//! Starts the services of the book shop as processes of their own, which ask each other through a proxy, and reads their
//! pages.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use harness::eventually::eventually;
use harness::port::Port;
use harness::{Bootstrap, Client, Cluster, Http, Program, Proxy, Reply, Route, VirtualHost};

fn programs() -> impl Iterator<Item = Program> {
    [Program::Outrigger, Program::Envoy].into_iter().filter(|program| program.is_installed())
}

/// A running service; dropping it ends it.
struct Service {
    process: Child,
    port: Port,
}

impl Service {
    async fn start(workload: &str, port: Port, proxy: SocketAddr) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_bookinfo"))
            .args(["service", workload, "--listen", &port.address().to_string()])
            .env("http_proxy", format!("http://{proxy}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self { process, port };
        eventually("the service's health", async || {
            let reply = service.client().get("/health").try_send().await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
        service
    }

    fn client(&self) -> Client {
        Client::http1(self.port.address())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All services but one of the three kinds of reviews, and the proxy that leads from one to the other.
struct Shop {
    services: Vec<Service>,
    proxy: Proxy,
}

impl Shop {
    async fn open(program: Program, reviews: &str) -> Self {
        let workloads = ["productpage-v1", "details-v1", "ratings-v1", reviews];
        let ports = workloads.map(|name| (name, Port::reserve()));
        let name = |workload: &str| workload.split('-').next().unwrap().to_owned();
        let host = |(workload, _): &(&str, Port)| {
            let name = name(workload);
            VirtualHost::new(&name, [&*format!("{name}:9080")], [Route::prefix("/").to(&name)])
        };
        let mut bootstrap = Bootstrap::http(Http::hosting(ports.iter().map(host)));
        for (workload, port) in &ports {
            bootstrap = bootstrap.cluster(Cluster::new(&name(workload)).endpoint(port.address()));
        }
        let proxy = bootstrap.start(program).await;
        let mut services = Vec::new();
        for (workload, port) in ports {
            services.push(Service::start(workload, port, proxy.address("main")).await);
        }
        Self { services, proxy }
    }

    /// The book's page, for a visitor with this cookie.
    async fn page(&self, cookie: &str) -> Reply {
        let call = self.services[0].client().get("/productpage");
        call.header("cookie", cookie).send().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_made_of_all_services() {
    for program in programs() {
        for (reviews, stars) in [
            ("reviews-v1", None),
            ("reviews-v2", Some("<span class=\"black\">★★★★☆</span>")),
            ("reviews-v3", Some("<span class=\"red\">★★★★☆</span>")),
        ] {
            let shop = Shop::open(program, reviews).await;
            let page = shop.page("").await;
            assert_eq!(page.status, 200);
            let text = page.text();
            assert!(text.contains("<dd>PublisherA</dd>"), "{text}");
            assert!(text.contains(&format!("Reviews served by {reviews}")), "{text}");
            match stars {
                Some(stars) => assert!(text.contains(stars), "{text}"),
                None => assert!(!text.contains('★'), "{text}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_to_be_missing() {
    for program in programs() {
        let mut shop = Shop::open(program, "reviews-v2").await;
        drop(shop.services.remove(2));
        let text = shop.page("").await.text();
        assert!(text.contains("Ratings service is currently unavailable"), "{text}");
        drop(shop.services.pop());
        let text = shop.page("").await.text();
        assert!(text.contains("product reviews are currently unavailable"), "{text}");
        assert!(text.contains("<dd>PublisherA</dd>"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_told_who_has_logged_in() {
    for program in programs() {
        let shop = Shop::open(program, "reviews-v3").await;
        let client = shop.services[0].client();
        let reply = client.post("/login").body("username=jason&passwd=x").send().await;
        assert_eq!((reply.status, reply.header("location")), (302, Some("/productpage".into())));
        let cookie = reply.header("set-cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap();
        assert_eq!(cookie, "session=jason");
        assert!(shop.page(cookie).await.text().contains("<p>jason ("));
        let reply = client.post("/login").body("username=%3Cb%3E").send().await;
        assert_eq!(reply.status, 400);
        let before = shop.proxy.stat("http.main.downstream_rq_total").await;
        let requests = shop.page("").await;
        assert_eq!(requests.status, 200);
        // Details, reviews, and ratings for these.
        assert_eq!(shop.proxy.stat("http.main.downstream_rq_total").await, before + 3);
    }
}
