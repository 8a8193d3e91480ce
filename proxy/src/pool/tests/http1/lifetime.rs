//! How long connections are kept.

use super::*;

#[test]
fn a_connection_carries_no_more_requests_than_it_may() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture =
            Fixture::new(server.address, |cluster| cluster.http.max_requests_per_connection = 2);
        for _ in 0..5 {
            assert_eq!(fixture.get().await, "ok");
        }
        assert_eq!(server.connections.get(), 3);
        assert_eq!(fixture.stats.upstream_cx_max_requests.get(), 2);
    });
}

#[test]
fn idle_connections_expire() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.http.idle_timeout = Some(Duration::from_millis(60));
        });
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(fixture.stats.upstream_cx_active.get(), 1);
        fixture.all_closed().await;
        assert_eq!(fixture.stats.upstream_cx_idle_timeout.get(), 1);
        assert_eq!(fixture.stats.upstream_cx_destroy_local.get(), 1);
    });
}

#[test]
fn connections_expire_by_age() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.http.max_connection_duration = Some(Duration::from_millis(60));
        });
        assert_eq!(fixture.get().await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.stats.upstream_cx_max_duration_reached.get(), 1);
    });
}

#[test]
fn a_server_that_states_its_patience_is_believed() {
    on_worker(async {
        let patient = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n\r\nok";
        let server = Server::start(move |_| Then::Say(patient)).await;
        let fixture = Fixture::new(server.address, |_| {});
        for _ in 0..2 {
            assert_eq!(text(fixture.send(Reuse::Verified).await.unwrap()).await, "ok");
        }
        assert_eq!(server.connections.get(), 2, "not entrusted to the first");
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 2, "a GET may try");
    });
}

#[test]
fn a_change_of_settings_lets_requests_finish_and_old_connections_go() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAfter(50, OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        let lease = fixture.lease(Reuse::Any).await.unwrap();
        let under_way = lease.send(get("/"));
        fixture.pool.reconfigure(fixture.settings.clone());
        assert_eq!(fixture.stats.upstream_cx_active.get(), 1, "nothing has changed");

        let mut changed = Cluster::clone(&fixture.settings.cluster);
        changed.http.max_headers_count = 50;
        let changed = Settings { cluster: Arc::new(changed), ..fixture.settings.clone() };
        fixture.pool.reconfigure(changed);
        assert_eq!(text(under_way.await.unwrap()).await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 2);
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_pool_that_is_dropped_closes_its_connections() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let Fixture { pool, stats, .. } = {
            let fixture = Fixture::new(server.address, |_| {});
            assert_eq!(fixture.get().await, "ok");
            fixture
        };
        assert_eq!(stats.upstream_cx_active.get(), 1);
        drop(pool);
        eventually(|| stats.upstream_cx_active.get() == 0).await;
    });
}

fn telling_clients(cluster: &mut Cluster) {
    use crate::config::connecting::ProxyProtocol;
    use crate::config::tlv::PassedTlvs;
    let version = crate::net::proxy_protocol::Version::V1;
    let header = ProxyProtocol { version, added_tlvs: Vec::new(), passed_tlvs: PassedTlvs::None };
    cluster.connecting.proxy_protocol = Some(Arc::new(header));
}

async fn get_for(fixture: &Fixture, port: u16, presence: &Presence) {
    let end = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let client = Client { ends: Some((end(port), end(80))), ..Client::default() };
    let need = Need {
        priority: Priority::Default,
        downstream: Protocol::Http1,
        host: None,
        client: &client,
        presence,
        alpn: None,
        reuse: Reuse::Any,
    };
    let lease = fixture.pool.acquire(need).await.unwrap();
    assert_eq!(text(lease.send(get("/")).await.unwrap()).await, "ok");
}

#[test]
fn connections_for_a_client_alone_end_with_it() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, telling_clients);
        for port in 1..=40 {
            let (one, other) = (Presence::default(), Presence::default());
            get_for(&fixture, port, &one).await;
            get_for(&fixture, port, &other).await;
            drop(one);
            assert_eq!(fixture.stats.upstream_cx_active.get(), 1);
            get_for(&fixture, port, &other).await;
            drop(other);
            fixture.all_closed().await;
        }
        assert_eq!(server.connections.get(), 40);
        assert!(fixture.pool.others.borrow().len() <= ROOM);
        get_for(&fixture, 1, &Presence::default()).await;
        fixture.all_closed().await;
        fixture.assert_nothing_held();
    });
}
