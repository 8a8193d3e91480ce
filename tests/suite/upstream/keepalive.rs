//! Connections to endpoints that are probed while nothing moves on them.

use std::net::SocketAddr;

use harness::{Backend, Cluster, Program, eventually, json};

use super::to_app;

on_both!(idle_connections_are_probed);

async fn idle_connections_are_probed(program: Program) {
    for (options, probed) in
        [(json!({}), false), (json!({"tcp_keepalive": {"keepalive_time": 9}}), true)]
    {
        let app = Backend::echo("app").await;
        let cluster =
            Cluster::new("app").endpoint(&app).with("upstream_connection_options", options);
        let proxy = to_app(program, cluster).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        // Just after an answer the timer may still be that of something else.
        eventually("the timer of keepalive, or none", async || {
            (timer_of_connection_to(app.address())? == if probed { "02" } else { "00" })
                .then_some(())
        })
        .await;
    }
}

/// Which timer runs on the connection to `address`, as the kernel numbers them: 02 is keepalive.
fn timer_of_connection_to(address: SocketAddr) -> Option<String> {
    let remote = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut open = rows.filter(|row| row[2].ends_with(&remote) && row[3] == "01");
    Some(open.next()?[5].split(':').next()?.to_owned())
}
