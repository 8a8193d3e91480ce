//! The `rbac` filter of connections: who may make them.

use harness::{
    Backend, Bootstrap, Cluster, Listener, Pki, Program, Proxy, RawConnection, Tcp, TcpBackend,
    Value, json,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::differences::{Differs, VERDICT_BEFORE_GREETING};
use crate::rbac::clients::authenticated;
use crate::rbac::{lines, rules, who};

on_both!(
    connections_pass_or_are_closed,
    connections_are_known_by_their_certificates,
    a_denied_connection_may_be_kept_waiting,
    a_server_that_speaks_first_waits_for_the_verdict,
);

/// A TCP proxy behind the network filter.
async fn tcp(program: Program, app: &TcpBackend, config: Value, tls: Option<Value>) -> Proxy {
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let format = "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS%";
    let filters = Tcp::to("app").text_log(&log, format).after("rbac", "RBAC", config);
    let listener = Listener::new("main", filters);
    let listener = match tls {
        Some(context) => listener.tls(context),
        None => listener,
    };
    let cluster = Cluster::new("app").endpoint(app);
    bootstrap.listener(listener).cluster(cluster).start(program).await
}

async fn connections_pass_or_are_closed(program: Program) {
    let app = TcpBackend::echo().await;
    let from = |ip: &str| json!([{"direct_remote_ip": {"address_prefix": ip, "prefix_len": 32}}]);
    let config = json!({
        "stat_prefix": "tcp.",
        "rules": rules("DENY", json!({"o ne": who(from("127.0.0.2"))})),
        "shadow_rules": rules("DENY", json!({"other": who(from("127.0.0.3"))})),
        "shadow_rules_stat_prefix": "dry_",
    });
    let proxy = tcp(program, &app, config, None).await;
    for (source, passes) in [("127.0.0.1", true), ("127.0.0.2", false), ("127.0.0.3", true)] {
        let mut connection = RawConnection::open_from(source, proxy.address("main")).await;
        connection.write("hello").await;
        if passes {
            assert_eq!(connection.read_exactly(5).await, b"hello", "{source}");
        } else {
            connection.read_to_end().await;
        }
    }
    proxy
        .until_stats([
            ("tcp.rbac.allowed", 2),
            ("tcp.rbac.denied", 1),
            ("tcp.rbac.dry_.shadow_allowed", 2),
            ("tcp.rbac.dry_.shadow_denied", 1),
            ("tcp.main.downstream_cx_total", 3),
        ])
        .await;
    let mut lines = lines(&proxy, 3).await;
    lines.sort();
    assert_eq!(lines, ["- -", "- -", "- rbac_access_denied_matched_policy[o_ne]"]);
}

async fn connections_are_known_by_their_certificates(program: Program) {
    let app = Backend::echo("app").await;
    let pki = Pki::new();
    let tls = pki.mutual(&pki.workload("server"));
    let policies = json!({"p": who(authenticated(json!({"suffix": "/sa/friend"})))});
    let config = json!({"stat_prefix": "net", "rules": rules("ALLOW", policies)});
    let filters = Tcp::to("app").after("rbac", "RBAC", config);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", filters).tls(tls))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    for (account, passes) in [("friend", true), ("stranger", false)] {
        let client = proxy.client().tls(pki.client(Some(&pki.workload(account))));
        let reply = client.get("/").try_send().await;
        assert_eq!(reply.is_ok_and(|reply| reply.status == 200), passes, "{account}");
    }
    proxy.until_stats([("net.rbac.allowed", 1), ("net.rbac.denied", 1)]).await;
}

async fn a_denied_connection_may_be_kept_waiting(program: Program) {
    let app = TcpBackend::echo().await;
    let config = json!({
        "stat_prefix": "net",
        "rules": rules("ALLOW", json!({})),
        "delay_deny": "0.3s",
    });
    let proxy = tcp(program, &app, config, None).await;
    let begin = std::time::Instant::now();
    let mut connection = proxy.connect().await;
    connection.write("hello").await;
    connection.read_to_end().await;
    assert!(begin.elapsed().as_millis() >= 300, "closed after {:?}", begin.elapsed());
}

async fn a_server_that_speaks_first_waits_for_the_verdict(program: Program) {
    let app = TcpBackend::scripted(|mut stream| async move {
        let _ = stream.write_all(b"welcome").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let from = json!([{"direct_remote_ip": {"address_prefix": "127.0.0.2", "prefix_len": 32}}]);
    let config = json!({"stat_prefix": "net", "rules": rules("ALLOW", json!({"p": who(from)}))});
    let filters = Tcp::to("app").after("rbac", "RBAC", config);
    let listener = Listener::new("main", filters);
    let cluster = Cluster::new("app").endpoint(&app);
    let proxy = Bootstrap::new().listener(listener).cluster(cluster).start(program).await;
    let mut welcome = RawConnection::open_from("127.0.0.2", proxy.address("main")).await;
    welcome.read_until("welcome").await;
    let mut denied = proxy.connect().await;
    if program.differs(VERDICT_BEFORE_GREETING) {
        denied.read_until("welcome").await;
        denied.write("x").await;
    }
    assert_eq!(denied.read_to_end().await, "");
}
