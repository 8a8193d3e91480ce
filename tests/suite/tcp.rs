//! Connections carried as bytes: where they go, how they end, what is told of them.

use std::time::{Duration, Instant};

use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::port::Port;
use harness::{
    Bootstrap, Close, Cluster, Listener, Program, Proxy, RawConnection, Tcp, TcpBackend, json,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod filters;
mod policies;
mod tunnel;

on_both!(
    bytes_pass_both_ways_and_are_counted,
    weights_divide_connections,
    a_client_may_end_first_and_still_read,
    a_server_may_end_first_and_still_read,
    a_reset_is_passed_on_as_a_reset,
    a_silent_connection_is_closed,
    a_connection_may_grow_only_so_old,
    another_host_is_tried,
    a_connection_without_a_host_is_closed,
    lines_come_at_the_connect_and_in_between,
    a_stream_outlives_new_configurations,
    a_slow_reader_is_waited_for,
    much_arrives_unharmed,
);

async fn echoing(program: Program, tcp: Tcp) -> (TcpBackend, Proxy) {
    let app = TcpBackend::echo().await;
    let proxy =
        Bootstrap::tcp(tcp).cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    (app, proxy)
}

/// Sends `ping` and waits for it to come back.
async fn ping(connection: &mut RawConnection) {
    connection.write("ping").await;
    assert_eq!(connection.read_exactly(4).await, b"ping");
}

async fn until_logged(proxy: &Proxy, lines: usize) -> Vec<String> {
    harness::eventually(&format!("{lines} lines in the log"), async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        let found: Vec<String> = text.lines().map(str::to_owned).collect();
        (found.len() >= lines).then_some(found)
    })
    .await
}

async fn bytes_pass_both_ways_and_are_counted(program: Program) {
    let app = TcpBackend::echo().await;
    let bootstrap = Bootstrap::new();
    let format = "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_CODE% %PROTOCOL% \
        %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT% \
        %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_LOCAL_ADDRESS% \
        %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQUESTED_SERVER_NAME% %FILTER_CHAIN_NAME% \
        %ROUTE_NAME% %REQ(:METHOD)% %RESPONSE_CODE_DETAILS%";
    let tcp = Tcp::to("app").text_log(&bootstrap.dir().join("access.log"), format);
    let proxy = bootstrap
        .listener(Listener::new("main", tcp))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    ping(&mut connection).await;
    connection.write("more").await;
    assert_eq!(connection.read_exactly(4).await, b"more");
    assert_eq!(proxy.stat("cluster.app.upstream_cx_active").await, 1);
    connection.finish().await;
    assert_eq!(connection.read_to_close().await, (String::new(), Close::Fin));

    let (host, local) = (app.address(), proxy.address("main"));
    let line = until_logged(&proxy, 1).await.remove(0);
    assert_eq!(line, format!("- 8 8 0 - {host} app 1 - {local} 127.0.0.1 - - - - -"));
    proxy
        .until_stats([
            ("tcp.main.downstream_cx_total", 1),
            ("tcp.main.downstream_cx_rx_bytes_total", 8),
            ("tcp.main.downstream_cx_tx_bytes_total", 8),
            ("tcp.main.downstream_cx_rx_bytes_buffered", 0),
            ("tcp.main.downstream_cx_no_route", 0),
            ("cluster.app.upstream_cx_total", 1),
            ("cluster.app.upstream_cx_destroy", 1),
            ("cluster.app.upstream_cx_destroy_remote", 1),
            ("cluster.app.upstream_cx_destroy_remote_with_active_rq", 1),
            ("cluster.app.upstream_cx_rx_bytes_total", 8),
            ("cluster.app.upstream_cx_tx_bytes_total", 8),
            ("cluster.app.upstream_rq_total", 1),
            ("cluster.app.upstream_rq_pending_total", 1),
            ("cluster.app.upstream_rq_active", 0),
        ])
        .await;
}

async fn weights_divide_connections(program: Program) {
    const CONNECTIONS: usize = 400;
    let (one, three) = (TcpBackend::named("one").await, TcpBackend::named("three").await);
    let proxy = Bootstrap::tcp(Tcp::to_weighted([("one", 1), ("three", 3)]))
        .cluster(Cluster::new("one").endpoint(&one))
        .cluster(Cluster::new("three").endpoint(&three))
        .start(program)
        .await;
    let mut ones = 0;
    for _ in 0..CONNECTIONS {
        let mut connection = proxy.connect().await;
        connection.finish().await;
        ones += usize::from(connection.read_to_end().await == "one");
    }
    // A quarter, give or take five standard deviations.
    assert!((57..=143).contains(&ones), "{ones} of {CONNECTIONS}");
}

async fn a_client_may_end_first_and_still_read(program: Program) {
    let app = TcpBackend::scripted(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let proxy = Bootstrap::tcp(Tcp::to("app"))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    connection.write("question").await;
    connection.finish().await;
    assert_eq!(connection.read_to_close().await, ("8 bytes".to_owned(), Close::Fin));
    proxy.until_stat("cluster.app.upstream_cx_destroy_remote", |count| count == 1).await;
}

async fn a_server_may_end_first_and_still_read(program: Program) {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = TcpBackend::scripted(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"that is all").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            tell.send(all).unwrap();
        }
    })
    .await;
    let proxy = Bootstrap::tcp(Tcp::to("app"))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    assert_eq!(connection.read_to_close().await, ("that is all".to_owned(), Close::Fin));
    connection.write("late").await;
    connection.finish().await;
    assert_eq!(told.recv().await.unwrap(), "late");
    proxy.until_stat("cluster.app.upstream_cx_destroy_local", |count| count == 1).await;
}

async fn a_reset_is_passed_on_as_a_reset(program: Program) {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = TcpBackend::scripted(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            if &word == b"kick" {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            stream.write_all(&word).await.unwrap();
            tell.send(stream.read(&mut word).await.is_err()).unwrap();
        }
    })
    .await;
    let bootstrap = Bootstrap::new();
    let tcp = Tcp::to("app").text_log(&bootstrap.dir().join("access.log"), "%RESPONSE_FLAGS%");
    let proxy = bootstrap
        .listener(Listener::new("main", tcp))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    connection.write("kick").await;
    assert_eq!(connection.read_to_close().await, (String::new(), Close::Rst));
    assert_eq!(until_logged(&proxy, 1).await, ["UR"]);

    let mut connection = proxy.connect().await;
    ping(&mut connection).await;
    connection.reset();
    assert!(told.recv().await.unwrap(), "the server sees a reset");
    assert_eq!(until_logged(&proxy, 2).await, ["UR", "-"]);
}

async fn a_silent_connection_is_closed(program: Program) {
    let (_app, proxy) = echoing(program, Tcp::to("app").with("idle_timeout", "1s")).await;
    let mut connection = proxy.connect().await;
    let mut last = Instant::now();
    // Whoever speaks is not idle.
    for _ in 0..12 {
        ping(&mut connection).await;
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(connection.read_to_close().await, (String::new(), Close::Fin));
    assert!(last.elapsed() >= Duration::from_millis(950), "{:?}", last.elapsed());
    proxy.until_stat("tcp.main.idle_timeout", |count| count == 1).await;
    assert_eq!(proxy.stat("cluster.app.upstream_cx_destroy_local").await, 1);
}

async fn a_connection_may_grow_only_so_old(program: Program) {
    let app = TcpBackend::echo().await;
    let bootstrap = Bootstrap::new();
    let tcp = Tcp::to("app")
        .with("max_downstream_connection_duration", "0.5s")
        .text_log(&bootstrap.dir().join("access.log"), "%RESPONSE_FLAGS% %BYTES_SENT%");
    let proxy = bootstrap
        .listener(Listener::new("main", tcp))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let begun = Instant::now();
    let mut connection = proxy.connect().await;
    ping(&mut connection).await;
    assert_eq!(connection.read_to_close().await, (String::new(), Close::Fin));
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    assert_eq!(until_logged(&proxy, 1).await, ["DT 4"]);
    proxy.until_stat("tcp.main.max_downstream_connection_duration", |count| count == 1).await;
}

async fn another_host_is_tried(program: Program) {
    let (app, dead) = (TcpBackend::echo().await, Port::reserve());
    let bootstrap = Bootstrap::new();
    let tcp = Tcp::to("app").with("max_connect_attempts", 2).text_log(
        &bootstrap.dir().join("access.log"),
        "%RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON%",
    );
    let proxy = bootstrap
        .listener(Listener::new("main", tcp))
        .cluster(Cluster::new("app").endpoint(&dead).endpoint(&app))
        .start(program)
        .await;
    let lines = 6;
    for _ in 0..lines {
        let mut connection = proxy.connect().await;
        ping(&mut connection).await;
        connection.finish().await;
        connection.read_to_end().await;
    }
    let host = app.address();
    let lines = until_logged(&proxy, lines).await;
    let refused = format!("UF {host} delayed_connect_error:_Connection_refused");
    let (tried, direct): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| *line == refused);
    assert!(!tried.is_empty(), "{direct:?}");
    assert!(direct.iter().all(|line| *line == format!("- {host} -")), "{direct:?}");
    let failed = tried.len() as u64;
    assert_eq!(proxy.stat("cluster.app.upstream_cx_connect_fail").await, failed);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_pending_failure_eject").await, failed);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_connect_attempts_exceeded").await, 0);
}

async fn a_connection_without_a_host_is_closed(program: Program) {
    let dead = Port::reserve();
    let mut bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    for cluster in ["dead", "empty", "missing", "full"] {
        let format = "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %UPSTREAM_HOST%";
        let tcp = Tcp::to(cluster).text_log(&log, format);
        bootstrap = bootstrap.listener(Listener::new(cluster, tcp));
    }
    let none = json!({"thresholds": [{"max_connections": 0}]});
    let proxy = bootstrap
        .cluster(Cluster::new("dead").endpoint(&dead))
        .cluster(Cluster::new("empty"))
        .cluster(Cluster::new("full").endpoint(&dead).with("circuit_breakers", none))
        .start(program)
        .await;
    for (done, cluster) in ["dead", "empty", "missing", "full"].into_iter().enumerate() {
        let mut connection = RawConnection::open(proxy.address(cluster)).await;
        assert_eq!(connection.read_to_close().await, (String::new(), Close::Fin), "{cluster}");
        until_logged(&proxy, done + 1).await;
    }
    let dead = dead.address();
    assert_eq!(
        until_logged(&proxy, 4).await,
        [&*format!("UF,URX dead {dead}"), "UH empty -", "NC - -", "UO full -"]
    );
    proxy
        .until_stats([
            ("tcp.main.downstream_cx_total", 4),
            ("tcp.main.downstream_cx_no_route", 1),
            ("cluster.dead.upstream_cx_connect_attempts_exceeded", 1),
            ("cluster.dead.upstream_cx_connect_fail", 1),
            ("cluster.dead.upstream_cx_destroy_remote", 1),
            ("cluster.empty.upstream_cx_none_healthy", 1),
            ("cluster.full.upstream_cx_overflow", 1),
            ("cluster.full.upstream_cx_total", 0),
        ])
        .await;
}

async fn lines_come_at_the_connect_and_in_between(program: Program) {
    let app = TcpBackend::echo().await;
    let bootstrap = Bootstrap::new();
    let options =
        json!({"flush_access_log_on_connected": true, "access_log_flush_interval": "0.3s"});
    let tcp = Tcp::to("app")
        .with("access_log_options", options)
        .text_log(&bootstrap.dir().join("access.log"), "%BYTES_SENT% %UPSTREAM_CLUSTER%");
    let proxy = bootstrap
        .listener(Listener::new("main", tcp))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    assert_eq!(until_logged(&proxy, 1).await[0], "0 app");
    ping(&mut connection).await;
    eventually_true("a line in between", async || {
        until_logged(&proxy, 2).await.last().is_some_and(|line| line == "4 app")
    })
    .await;
    let before = until_logged(&proxy, 2).await.len();
    connection.finish().await;
    connection.read_to_end().await;
    assert_eq!(until_logged(&proxy, before + 1).await.last().unwrap(), "4 app");
}

async fn a_stream_outlives_new_configurations(program: Program) {
    let (app, other) = (TcpBackend::echo().await, TcpBackend::named("other").await);
    let mut bootstrap = Bootstrap::new();
    let (listeners, clusters) =
        (DiscoveryFile::listeners(bootstrap.dir()), DiscoveryFile::clusters(bootstrap.dir()));
    let listener = |bootstrap: &mut Bootstrap, cluster| {
        bootstrap.reserve_for(Listener::new("main", Tcp::to(cluster)))
    };
    let (first, second) = (listener(&mut bootstrap, "app"), listener(&mut bootstrap, "other"));
    listeners.publish([first]);
    clusters.publish([Cluster::new("app").endpoint(&app).into()]);
    let proxy = bootstrap
        .with("dynamic_resources.lds_config", listeners.source())
        .with("dynamic_resources.cds_config", clusters.source())
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    ping(&mut connection).await;
    clusters.publish([Cluster::new("other").endpoint(&other).into()]);
    listeners.publish([second]);
    eventually_true("new connections going elsewhere", async || {
        let mut connection = proxy.connect().await;
        connection.finish().await;
        connection.read_to_end().await == "other"
    })
    .await;
    ping(&mut connection).await;
    connection.finish().await;
    assert_eq!(connection.read_to_close().await, (String::new(), Close::Fin));
}

async fn a_slow_reader_is_waited_for(program: Program) {
    const MEGABYTE: u64 = 1 << 20;
    let (read, may_read) = tokio::sync::watch::channel(false);
    let app = TcpBackend::scripted(move |mut stream| {
        let mut may_read = may_read.clone();
        async move {
            may_read.wait_for(|now| *now).await.unwrap();
            let count = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
            stream.write_all(count.to_string().as_bytes()).await.unwrap();
        }
    })
    .await;
    let proxy = Bootstrap::tcp(Tcp::to("app"))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let before = proxy.resident();
    let mut stream = proxy.connect().await.into_stream();
    let piece = vec![7; 1 << 20];
    let mut pushed = 0;
    // Push until the sockets on the way are full and nothing moves any more.
    while let Ok(count) = tokio::time::timeout(Duration::from_secs(1), stream.write(&piece)).await {
        pushed += count.unwrap() as u64;
        assert!(pushed < 256 * MEGABYTE, "somebody takes it all");
    }
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 16 * MEGABYTE, "{grown} bytes more in memory");
    read.send_replace(true);
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, pushed.to_string());
}

async fn much_arrives_unharmed(program: Program) {
    const SIZE: usize = 64 << 20;
    let (_app, proxy) = echoing(program, Tcp::to("app")).await;
    let mut random = fastrand::Rng::with_seed(64);
    let piece: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take((1 << 20) + 7).collect();
    let (mut reads, mut writes) = proxy.connect().await.into_stream().into_split();
    let byte = |at: usize| piece[at % piece.len()];
    let sending = async {
        let mut sent = 0;
        while sent < SIZE {
            let from = sent % piece.len();
            let some = &piece[from..(from + SIZE - sent).min(piece.len())];
            writes.write_all(some).await.unwrap();
            sent += some.len();
        }
        writes.shutdown().await.unwrap();
    };
    let receiving = async {
        let (mut received, mut buffer) = (0, vec![0; 1 << 18]);
        loop {
            let count = reads.read(&mut buffer).await.unwrap();
            if count == 0 {
                return received;
            }
            let first = buffer[..count].iter().zip(received..).find(|(b, at)| **b != byte(*at));
            assert_eq!(first, None, "a byte that was not sent there");
            received += count;
        }
    };
    let ((), received) = tokio::join!(sending, receiving);
    assert_eq!(received, SIZE);
}
