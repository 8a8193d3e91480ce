//! Circuit breakers, and waiting in line.

use futures_util::FutureExt;

use super::*;

#[test]
fn at_the_limit_requests_wait_for_a_connection_to_come_free() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAfter(30, OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.circuit_breakers[0].max_connections = 1;
            cluster.circuit_breakers[0].max_pending_requests = 2;
        });
        let answers = fixture.get_at_once(Priority::Default, 4).await;
        assert_eq!(answers, ["ok", "ok", "overflow", "overflow"]);
        assert_eq!(server.connections.get(), 1);
        assert_eq!(fixture.stats.upstream_rq_pending_overflow.get(), 2);
        assert!(fixture.stats.upstream_cx_overflow.get() > 0);
        fixture.assert_nothing_held();
    });
}

#[test]
fn at_the_limit_an_idle_connection_makes_way_for_a_new_one() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.circuit_breakers[0].max_connections = 1;
        });
        for served in 1..4 {
            assert_eq!(text(fixture.send(Reuse::Never).await.unwrap()).await, "ok");
            assert_eq!(server.connections.get(), served);
            assert_eq!(fixture.breaker.read(circuit_breaker::Resource::Connections).taken, 1);
        }
    });
}

#[test]
fn requests_over_the_limit_are_refused() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture =
            Fixture::new(server.address, |cluster| cluster.circuit_breakers[0].max_requests = 1);
        let first = fixture.lease(Reuse::Any).await.unwrap();
        let error = fixture.lease(Reuse::Any).await.unwrap_err();
        assert_eq!(error, ConnectError::Overflow(Limit::Requests));
        assert_eq!(text(first.send(get("/")).await.unwrap()).await, "ok");
        assert_eq!(fixture.get().await, "ok");
    });
}

#[test]
fn a_request_that_gives_up_waiting_leaves_nothing_behind() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        assert!(fixture.lease(Reuse::Any).now_or_never().is_none());
        assert_eq!(fixture.stats.upstream_rq_cancelled.get(), 1);
        eventually(|| server.connections.get() == 1).await;
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 1, "the connection it had asked for is used");
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_priority_does_not_use_the_connections_of_the_other() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAfter(30, OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.circuit_breakers[0].max_connections = 1;
            cluster.circuit_breakers[0].max_pending_requests = 1;
        });
        for _ in 0..2 {
            assert_eq!(fixture.get_at_once(Priority::High, 4).await, ["ok"; 4]);
            assert_eq!(server.connections.get(), 4);
        }
        let normal = fixture.get_at_once(Priority::Default, 4).await;
        assert_eq!(normal, ["ok", "overflow", "overflow", "overflow"]);
        assert_eq!(server.connections.get(), 5);
    });
}
