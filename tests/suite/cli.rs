//! The command line as containers use it, and what a person is told when it does not work.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use harness::proxy::command;
use harness::{Bootstrap, Http, Program, Route};
use prost::Message;
use xds::envoy::config::bootstrap::v3::Bootstrap as Proto;
use xds::yaml::Document;

use crate::differences::{DUPLICATE_KEYS, Differs};

on_both!(
    version_is_printed,
    validate_accepts_a_good_bootstrap,
    validate_refuses_every_broken_bootstrap,
    a_port_in_use_is_an_error,
    a_missing_file_is_an_error,
    yaml_on_the_command_line_is_merged,
    the_admin_address_is_written_to_a_file,
    flags_name_the_node,
    a_bootstrap_may_be_binary,
    validate_opens_access_logs,
);

on_outrigger_only!(
    errors_name_file_line_and_field_path because PLACE_OF_ERRORS,
    an_error_of_the_system_names_its_place because PLACE_OF_ERRORS,
    envoys_other_flags_are_accepted_with_a_warning because PLACE_OF_ERRORS,
);

/// A bootstrap with one line replaced, so that exactly that line is wrong.
struct Broken {
    what: &'static str,
    line: &'static str,
    replacement: &'static str,
    /// The line that is wrong, and the field path of the error.
    at: (&'static str, &'static str),
}

const GOOD: &str = r#"admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: 0}
static_resources:
  listeners:
  - name: main
    address:
      socket_address: {address: 127.0.0.1, port_value: 0}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          codec_type: AUTO
          stream_idle_timeout: 5s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: app}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 1s
"#;

const BROKEN: [Broken; 7] = [
    Broken {
        what: "unknown field",
        line: "          stat_prefix: main\n",
        replacement: "          stat_prefix: main\n          stat_perfix: main\n",
        at: ("stat_perfix", ".typed_config.stat_perfix"),
    },
    Broken {
        what: "wrong enum",
        line: "codec_type: AUTO",
        replacement: "codec_type: HTTP9",
        at: ("HTTP9", ".typed_config.codec_type"),
    },
    Broken {
        what: "bad duration",
        line: "stream_idle_timeout: 5s",
        replacement: "stream_idle_timeout: 5 minutes",
        at: ("5 minutes", ".typed_config.stream_idle_timeout"),
    },
    Broken {
        what: "unknown @type",
        line: "envoy.extensions.filters.http.router.v3.Router",
        replacement: "envoy.extensions.filters.http.rooter.v3.Rooter",
        at: ("v3.Rooter", ".typed_config.http_filters[0].typed_config"),
    },
    Broken {
        what: "duplicate key",
        line: "    connect_timeout: 1s\n",
        replacement: "    connect_timeout: 1s\n    connect_timeout: 2s\n",
        at: ("connect_timeout: 2s", "static_resources.clusters[0].connect_timeout"),
    },
    Broken {
        what: "missing certificate",
        line: "    filter_chains:\n    - filters:\n",
        replacement: "    filter_chains:\n    - transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n          common_tls_context:\n            tls_certificates:\n            - certificate_chain: {filename: /nowhere/cert.pem}\n              private_key: {filename: /nowhere/key.pem}\n      filters:\n",
        at: (
            "/nowhere/cert.pem",
            "filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates[0].certificate_chain",
        ),
    },
    Broken {
        what: "dangling cluster",
        line: "route: {cluster: app}",
        replacement: "route: {cluster: ghost}",
        at: ("ghost", ".route_config.virtual_hosts[0].routes[0].route.cluster"),
    },
];

impl Broken {
    fn text(&self) -> String {
        assert!(GOOD.contains(self.line), "{}", self.line);
        GOOD.replacen(self.line, self.replacement, 1)
    }
}

fn line_of(text: &str, part: &str) -> usize {
    text[..text.find(part).unwrap()].matches('\n').count() + 1
}

/// Runs `program` on `yaml` to its end.
fn run(program: Program, dir: &Path, yaml: &str, arguments: &[&str]) -> Output {
    let file = dir.join("bootstrap.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut command = command(program);
    command.arg("-c").arg(file).args(["--disable-hot-restart"]).args(arguments);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

async fn version_is_printed(program: Program) {
    let output = command(program).arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = said(&output).trim().to_owned();
    assert!(said.contains("version") || said.starts_with("outrigger "), "{said}");
    assert!(said.contains(|c: char| c.is_ascii_digit()), "{said}");
}

async fn validate_accepts_a_good_bootstrap(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    let output = run(program, dir.path(), GOOD, &["--mode", "validate"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("bootstrap.yaml' OK"), "{said}");
}

async fn validate_refuses_every_broken_bootstrap(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    for broken in BROKEN {
        let output = run(program, dir.path(), &broken.text(), &["--mode", "validate"]);
        let taken = broken.what == "duplicate key" && program.differs(DUPLICATE_KEYS);
        let expected = Some(i32::from(!taken));
        assert_eq!(output.status.code(), expected, "{}: {}", broken.what, said(&output));
    }
}

async fn errors_name_file_line_and_field_path(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    for broken in BROKEN {
        let text = broken.text();
        for mode in ["validate", "serve"] {
            let output = run(program, dir.path(), &text, &["--mode", mode]);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(1), "{}: {said}", broken.what);
            let (part, path) = broken.at;
            let place = format!("bootstrap.yaml:{}:", line_of(&text, part));
            assert!(said.contains(&place), "{}: no {place} in\n{said}", broken.what);
            assert!(said.contains(path), "{}: no {path} in\n{said}", broken.what);
        }
    }
}

async fn a_port_in_use_is_an_error(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(program, dir.path(), &listening_on(taken.local_addr().unwrap()), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

/// The good bootstrap with its listener at `address`.
fn listening_on(address: std::net::SocketAddr) -> String {
    let (head, tail) = GOOD.rsplit_once("port_value: 0}").unwrap();
    format!("{head}port_value: {}}}{tail}", address.port())
}

async fn an_error_of_the_system_names_its_place(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let yaml = listening_on(address);
    let output = run(program, dir.path(), &yaml, &[]);
    let said = said(&output);
    let line = line_of(&yaml, &format!("port_value: {}", address.port()));
    for part in [
        format!("bootstrap.yaml:{line}:"),
        "static_resources.listeners[0].address".to_owned(),
        address.to_string(),
    ] {
        assert!(said.contains(&part), "no {part} in\n{said}");
    }
}

async fn a_missing_file_is_an_error(program: Program) {
    let output = command(program).args(["-c", "/nowhere/bootstrap.yaml"]).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/bootstrap.yaml"), "{said}");
}

async fn yaml_on_the_command_line_is_merged(program: Program) {
    let proxy = Bootstrap::routing([Route::prefix("/").direct(200, "ok")])
        .argument("--config-yaml")
        .argument("node: {id: from-the-command-line}")
        .start(program)
        .await;
    let info = proxy.admin().get("/server_info").send().await.json();
    assert_eq!(info["node"]["id"], "from-the-command-line");
    assert_eq!(proxy.get("/").send().await.text(), "ok");
}

async fn the_admin_address_is_written_to_a_file(program: Program) {
    let bootstrap = Bootstrap::routing([Route::prefix("/").direct(200, "ok")]);
    let file = bootstrap.dir().join("admin-address");
    let proxy = bootstrap
        .argument("--admin-address-path")
        .argument(file.to_str().unwrap())
        .start(program)
        .await;
    let address = std::fs::read_to_string(file).unwrap();
    let client = harness::Client::http1(address.trim().parse().unwrap());
    assert_eq!(client.get("/ready").send().await.status, 200);
    drop(proxy);
}

async fn flags_name_the_node(program: Program) {
    let proxy = Bootstrap::routing([Route::prefix("/").direct(200, "ok")])
        .with("node", harness::json!({}))
        .argument("--service-node")
        .argument("sidecar-1")
        .argument("--service-cluster")
        .argument("shop")
        .start(program)
        .await;
    let info = proxy.admin().get("/server_info").send().await.json();
    assert_eq!(
        (info["node"]["id"].as_str(), info["node"]["cluster"].as_str()),
        (Some("sidecar-1"), Some("shop"))
    );
}

async fn validate_opens_access_logs(program: Program) {
    let missing = Path::new("/nowhere/access.log");
    let http = || Http::routing([Route::prefix("/").direct(200, "ok")]);
    let said = Bootstrap::http(http().text_log(missing, "%RESPONSE_CODE%")).refusal(program);
    assert!(said.contains("No such file or directory"), "{said}");
    let said = Bootstrap::http(http()).with("admin.access_log_path", "/nowhere/admin.log");
    let said = said.refusal(program);
    assert!(said.contains("No such file or directory"), "{said}");
}

async fn a_bootstrap_may_be_binary(program: Program) {
    let directory = tempfile::tempdir().unwrap();
    let read = Document::new("good.yaml", GOOD).read::<Proto>();
    let file = directory.path().join("good.pb");
    std::fs::write(&file, read.unwrap().encode_to_vec()).unwrap();
    let validate =
        || command(program).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
    assert!(validate().status.success(), "{}", String::from_utf8_lossy(&validate().stderr));
    std::fs::write(&file, GOOD).unwrap();
    assert!(!validate().status.success(), "text is no protobuf");
}

async fn envoys_other_flags_are_accepted_with_a_warning(program: Program) {
    let flags = [
        "--base-id",
        "1",
        "--restart-epoch",
        "0",
        "--parent-shutdown-time-s",
        "60",
        "--local-address-ip-version",
        "v4",
        "--file-flush-interval-msec",
        "1000",
        "--drain-strategy",
        "immediate",
        "--use-dynamic-base-id",
        "--cpuset-threads",
    ];
    let bootstrap = flags
        .into_iter()
        .fold(Bootstrap::routing([Route::prefix("/").direct(200, "ok")]), Bootstrap::argument);
    let proxy = bootstrap.start(program).await;
    assert_eq!(proxy.get("/").send().await.text(), "ok");
    let log = proxy.log();
    for flag in ["--restart-epoch", "--use-dynamic-base-id", "--cpuset-threads"] {
        assert!(log.contains(flag), "{flag} is not named in\n{log}");
    }
}
