//! Hosts that come, go and fail: what becomes of them and of connections to them.

use harness::discovery_files::DiscoveryFile;
use harness::{Backend, Bootstrap, Client, Cluster, Listener, Program, Route, Tcp, Value, json};

use super::{Moody, all_succeed, flags, http, start, until_flags};

on_both!(
    a_removed_host_stays_while_it_passes_its_checks,
    a_removed_host_goes_at_once_if_that_is_wanted,
    a_removed_host_that_returns_stays,
    tcp_connections_are_cut_when_their_host_fails,
    connections_are_made_anew_when_hosts_change,
);

/// A cluster `app` of the endpoints in a file, and how they get there.
struct Listed {
    files: DiscoveryFile,
    _dir: tempfile::TempDir,
}

impl Listed {
    fn new(hosts: &[&Backend]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listed = Self { files: DiscoveryFile::endpoints(dir.path()), _dir: dir };
        listed.become_those(hosts);
        listed
    }

    fn become_those(&self, hosts: &[&Backend]) {
        let endpoint = |host: &&Backend| {
            let address = harness::bootstrap::socket_address(host.address());
            json!({"endpoint": {"address": address}})
        };
        let hosts: Vec<Value> = hosts.iter().map(endpoint).collect();
        let endpoints = json!([{"locality": {"zone": "z"}, "lb_endpoints": hosts}]);
        self.files.publish([json!({"cluster_name": "app", "endpoints": endpoints})]);
    }

    fn cluster(&self) -> Cluster {
        Cluster::from_file("app", self.files.path())
            .with("common_lb_config.healthy_panic_threshold.value", 0)
    }

    fn checked(&self) -> Cluster {
        self.cluster().with("health_checks", json!([http()]))
    }
}

async fn a_removed_host_stays_while_it_passes_its_checks(program: Program) {
    let (stays, goes) = (Backend::echo("stays").await, Moody::new("goes", 200).await);
    let listed = Listed::new(&[&stays, &goes.backend]);
    let proxy = start(program, listed.checked()).await;
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 2).await;
    listed.become_those(&[&stays]);
    until_flags(&proxy, goes.backend.address(), "/pending_dynamic_removal").await;
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 2);
    assert_eq!(proxy.stat("cluster.app.membership_healthy").await, 2);
    let before = goes.requests();
    all_succeed(&proxy).await;
    assert!(goes.requests() > before, "it is still in use");

    goes.becomes(503);
    proxy.until_stat("cluster.app.membership_total", |count| count == 1).await;
    assert_eq!(proxy.stat("cluster.app.membership_healthy").await, 1);
    all_succeed(&proxy).await;
}

async fn a_removed_host_goes_at_once_if_that_is_wanted(program: Program) {
    let (stays, goes) = (Backend::echo("stays").await, Backend::echo("goes").await);
    let listed = Listed::new(&[&stays, &goes]);
    let cluster = listed.checked().with("ignore_health_on_host_removal", true);
    let proxy = start(program, cluster).await;
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 2).await;
    listed.become_those(&[&stays]);
    proxy.until_stat("cluster.app.membership_total", |count| count == 1).await;
}

async fn a_removed_host_that_returns_stays(program: Program) {
    let (stays, moody) = (Backend::echo("stays").await, Moody::new("moody", 200).await);
    let listed = Listed::new(&[&stays, &moody.backend]);
    let proxy = start(program, listed.checked()).await;
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 2).await;
    listed.become_those(&[&stays]);
    until_flags(&proxy, moody.backend.address(), "/pending_dynamic_removal").await;
    listed.become_those(&[&stays, &moody.backend]);
    until_flags(&proxy, moody.backend.address(), "healthy").await;
    moody.becomes(503);
    until_flags(&proxy, moody.backend.address(), "/failed_active_hc").await;
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 2);
    assert_eq!(flags(&proxy, stays.address()).await, "healthy");
}

async fn tcp_connections_are_cut_when_their_host_fails(program: Program) {
    for cuts in [false, true] {
        let host = Moody::new("host", 200).await;
        let cluster = super::cluster(http())
            .endpoint(&host.backend)
            .with("close_connections_on_host_health_failure", cuts);
        let proxy = Bootstrap::new()
            .listener(Listener::new("main", Tcp::to("app")))
            .cluster(cluster)
            .start(program)
            .await;
        let client = Client::http1(proxy.address("main"));
        let mut connection = client.connect().await.unwrap();
        assert_eq!(connection.send(client.get("/")).await.unwrap().status, 200);
        host.becomes(503);
        if cuts {
            proxy.until_stat("cluster.app.upstream_cx_active", |count| count == 0).await;
            assert!(connection.send(client.get("/")).await.is_err());
        } else {
            until_flags(&proxy, host.backend.address(), "/failed_active_hc").await;
            assert_eq!(connection.send(client.get("/")).await.unwrap().status, 200);
        }
    }
}

async fn connections_are_made_anew_when_hosts_change(program: Program) {
    for anew in [false, true] {
        let (first, second) = (Backend::echo("first").await, Backend::echo("second").await);
        let listed = Listed::new(&[&first]);
        let cluster =
            listed.cluster().with("common_lb_config.close_connections_on_host_set_change", anew);
        let routes = [Route::prefix("/").to("app")];
        let proxy = Bootstrap::routing(routes).cluster(cluster).start(program).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        assert_eq!(proxy.stat("cluster.app.upstream_cx_active").await, 1);
        listed.become_those(&[&first, &second]);
        proxy.until_stat("cluster.app.membership_total", |count| count == 2).await;
        if anew {
            proxy.until_stat("cluster.app.upstream_cx_active", |count| count == 0).await;
        } else {
            assert_eq!(proxy.stat("cluster.app.upstream_cx_active").await, 1);
        }
    }
}
