//! What becomes of good, bad and mixed changes of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::call::Caller;
use crate::cluster::LocalClusters;
use crate::config::bootstrap::Node;
use crate::snapshot::SnapshotCell;

/// A directory of configuration files and the assembler that reads them.
struct World {
    directory: TempDir,
    assembler: Assembler,
    published: Vec<Arc<Snapshot>>,
    port_in_use: bool,
}

impl World {
    fn load(files: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            write(directory.path(), name, text);
        }
        let config_path = Some(directory.path().join("bootstrap.yaml"));
        let sources = Sources { config_path, config_yaml: None };
        let assembler = Assembler::load(sources, Arc::default()).map_err(|errors| {
            let root = format!("{}/", directory.path().display());
            errors.iter().map(|error| error.to_string().replace(&root, "")).collect::<Vec<_>>()
        })?;
        Ok(Self { directory, assembler, published: Vec::new(), port_in_use: false })
    }

    /// Loads and publishes.
    fn start(files: &[(&str, &str)]) -> Self {
        let mut world = Self::load(files).unwrap_or_else(|errors| panic!("{errors:#?}"));
        world.publish(|assembler, publish| {
            assembler.settle(Candidates::default(), Some(publish)).unwrap();
        });
        world
    }

    fn write(&self, name: &str, text: &str) {
        write(self.directory.path(), name, text);
    }

    /// Looks at the files, and returns how many snapshots that published.
    fn refresh(&mut self) -> usize {
        let before = self.published.len();
        self.publish(Assembler::refresh);
        self.published.len() - before
    }

    fn publish(&mut self, act: impl FnOnce(&mut Assembler, &mut Publish<'_>)) {
        let (published, port_in_use) = (&mut self.published, self.port_in_use);
        act(&mut self.assembler, &mut |snapshot| {
            if port_in_use {
                let error = Invalid::new("address", "in use");
                return Err(Unpublished { listener: "in".into(), error });
            }
            published.push(Arc::clone(snapshot));
            Ok(())
        });
    }

    fn now(&self) -> &Arc<Snapshot> {
        self.published.last().unwrap()
    }

    /// Problems, with paths relative to the directory.
    fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.directory.path().display());
        let problems = self.assembler.problems();
        problems.iter().map(|error| error.to_string().replace(&root, "")).collect()
    }
}

/// What reaches no server.
fn caller() -> Rc<Caller> {
    let clusters = Rc::new(LocalClusters::new(Arc::new(Clusters::new(Arc::default()))));
    Rc::new(Caller::new(clusters, &SnapshotCell::new(Snapshot::default())))
}

fn write(directory: &Path, name: &str, text: &str) {
    let text = text.replace("DIR", &directory.display().to_string());
    let next = directory.join(".next");
    fs::write(&next, text).unwrap();
    fs::rename(next, directory.join(name)).unwrap();
}

const CLUSTERS: &str = "
static_resources:
  clusters:
  - name: one
    load_assignment:
      cluster_name: one
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 23101}}}
  - name: two
    load_assignment:
      cluster_name: two
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 23102}}}
";

fn listener(routes: &str) -> String {
    let chain = format!(
        "filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          {routes}
          http_filters:
          - name: router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"
    );
    format!(
        "  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 23100}}}}
    {chain}"
    )
}

fn table(cluster: &str) -> String {
    format!(
        "{{name: t, virtual_hosts: [{{name: v, domains: ['*'], \
         routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
    )
}

fn inline(cluster: &str) -> String {
    let listener = listener(&format!("route_config: {}", table(cluster)));
    format!("{CLUSTERS}  listeners:\n{listener}")
}

fn discovered_listener(routes: &str) -> String {
    let typed = listener(routes).replacen(
        "  - name: in",
        "  - '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n    name: in",
        1,
    );
    format!("version_info: '1'\nresources:\n{typed}")
}

fn dynamic(what: &str) -> String {
    format!("{CLUSTERS}dynamic_resources:\n  {what}\n")
}

const LDS: &str = "lds_config: {path_config_source: {path: DIR/lds.yaml}}";
const RDS: &str =
    "rds: {route_config_name: t, config_source: {path_config_source: {path: DIR/rds.yaml}}}";

fn rds(cluster: &str) -> String {
    let table = table(cluster).replacen(
        '{',
        "{'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration, ",
        1,
    );
    format!("resources: [{table}]")
}

#[test]
fn a_bad_file_changes_nothing_and_a_later_good_one_is_taken() {
    let mut world = World::start(&[("bootstrap.yaml", &inline("one"))]);
    let first = Arc::clone(world.now());

    world.write("bootstrap.yaml", &inline("one").replace("port_value: 23102", "port_value: many"));
    assert_eq!(world.refresh(), 0);
    let problems = world.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("bootstrap.yaml:15:81: static_resources.clusters[1]."),
        "{problems:?}"
    );
    assert!(problems[0].contains(".port_value: expected an integer"), "{problems:?}");

    world.write("bootstrap.yaml", &inline("two"));
    assert_eq!(world.refresh(), 1);
    assert_eq!(world.problems(), [""; 0]);
    assert_eq!(world.now().version, first.version + 1);
}

#[test]
fn what_did_not_change_keeps_its_identity() {
    let mut world = World::start(&[("bootstrap.yaml", &inline("one"))]);
    let first = Arc::clone(world.now());

    world.write("bootstrap.yaml", &inline("one").replace("23102", "23103"));
    assert_eq!(world.refresh(), 1);
    let second = Arc::clone(world.now());
    assert!(Arc::ptr_eq(&first.clusters["one"], &second.clusters["one"]));
    assert!(!Arc::ptr_eq(&first.clusters["two"], &second.clusters["two"]));
    assert!(Arc::ptr_eq(&first.listeners["in"], &second.listeners["in"]));

    world.write("bootstrap.yaml", &inline("two").replace("23102", "23103"));
    assert_eq!(world.refresh(), 1);
    assert!(Arc::ptr_eq(&second.clusters["two"], &world.now().clusters["two"]));
    assert!(!Arc::ptr_eq(&second.listeners["in"], &world.now().listeners["in"]));

    assert_eq!(world.refresh(), 0, "nothing changed, nothing is published");
}

#[test]
fn a_dangling_cluster_is_refused_with_its_place() {
    let errors = World::load(&[("bootstrap.yaml", &inline("gone"))]).err().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("bootstrap.yaml:25:"), "{errors:?}");
    assert!(
        errors[0].contains(
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.\
             virtual_hosts[0].routes[0].route.cluster: there is no cluster \"gone\""
        ),
        "{errors:?}"
    );
}

#[test]
fn names_and_addresses_are_used_once() {
    let twice = inline("one").replacen("name: two", "name: one", 1);
    let errors = World::load(&[("bootstrap.yaml", &twice)]).err().unwrap();
    assert!(
        errors[0].starts_with("bootstrap.yaml:10:11: static_resources.clusters[1].name"),
        "{errors:?}"
    );

    let second =
        listener(&format!("route_config: {}", table("one"))).replace("name: in", "name: on");
    let errors =
        World::load(&[("bootstrap.yaml", &format!("{}{second}", inline("one")))]).err().unwrap();
    assert!(
        errors[0].contains("static_resources.listeners[1].address: 127.0.0.1:23100"),
        "{errors:?}"
    );
}

#[test]
fn a_bad_discovered_file_waits_for_a_good_one() {
    let mut world = World::start(&[
        ("bootstrap.yaml", &dynamic(LDS)),
        ("lds.yaml", &discovered_listener("route_confik: {}")),
    ]);
    assert!(world.now().listeners.is_empty());
    assert!(world.problems()[0].starts_with("lds.yaml:12:11: resources[0].filter_chains[0]"));
    let dump = world.assembler.dump();
    assert_eq!(dump.refused().len(), 1);

    world.write("lds.yaml", &discovered_listener(&format!("route_config: {}", table("one"))));
    assert_eq!(world.refresh(), 1);
    assert!(world.now().listeners.contains_key("in"));
    assert!(dump.refused().is_empty());

    world.write("lds.yaml", "resources: []");
    assert_eq!(world.refresh(), 1);
    assert!(world.now().listeners.is_empty(), "what LDS leaves out is removed");

    world.write("lds.yaml", "");
    assert_eq!(world.refresh(), 0);
    assert!(world.problems()[0].contains("the file is empty"));
}

#[test]
fn an_empty_bootstrap_is_refused() {
    let errors = World::load(&[("bootstrap.yaml", " \n")]).err().unwrap();
    assert!(errors[0].contains("the file is empty"), "{errors:?}");
    let mut world = World::start(&[("bootstrap.yaml", &inline("one"))]);
    world.write("bootstrap.yaml", "");
    assert_eq!(world.refresh(), 0);
    assert!(world.problems()[0].contains("the file is empty"), "{:?}", world.problems());
    assert!(world.now().listeners.contains_key("in"));
}

#[test]
fn a_missing_discovered_file_is_an_error() {
    let errors = World::load(&[("bootstrap.yaml", &dynamic(LDS))]).err().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with(
            "bootstrap.yaml:17:43: dynamic_resources.lds_config.path_config_source.path: lds.yaml"
        ),
        "{errors:?}"
    );
}

#[test]
fn a_table_that_is_not_there_yet_leaves_its_chain_without_routes() {
    let mut world = World::start(&[
        ("bootstrap.yaml", &dynamic(LDS)),
        ("lds.yaml", &discovered_listener(RDS)),
        ("rds.yaml", "resources: []"),
    ]);
    let chain = |world: &World| Arc::clone(&world.now().listeners["in"].chains[0]);
    assert!(chain(&world).http().unwrap().routes.is_none());

    world.write("rds.yaml", &rds("one"));
    assert_eq!(world.refresh(), 1);
    let first = chain(&world).http().unwrap().routes.clone().unwrap();
    assert!(Arc::ptr_eq(&first, &world.now().routes["t"]));

    world.write("rds.yaml", "resources: []");
    assert_eq!(world.refresh(), 0, "a table left out keeps its last version");

    world.write("rds.yaml", &rds("gone"));
    assert_eq!(world.refresh(), 1, "discovered tables may name clusters that come later");
    assert!(!Arc::ptr_eq(&first, chain(&world).http().unwrap().routes.as_ref().unwrap()));
}

#[test]
fn endpoints_change_only_their_cluster() {
    let eds = |port: u16| {
        format!(
            "resources:\n- '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  \
             cluster_name: three\n  endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
             {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]\n"
        )
    };
    let cluster = "  - {name: three, type: EDS, eds_cluster_config: \
                   {eds_config: {path_config_source: {path: DIR/eds.yaml}}}}\n";
    let mut world =
        World::start(&[("bootstrap.yaml", &format!("{CLUSTERS}{cluster}")), ("eds.yaml", &eds(1))]);
    let first = Arc::clone(world.now());
    world.write("eds.yaml", &eds(2));
    assert_eq!(world.refresh(), 1);
    assert!(Arc::ptr_eq(&first.clusters["one"], &world.now().clusters["one"]));
    let three = &world.now().clusters["three"];
    assert!(Arc::ptr_eq(&first.clusters["three"].config, &three.config));
    assert_eq!(three.assignment.endpoints[0].address.to_string(), "127.0.0.1:2");

    world.write("eds.yaml", &eds(2).replace("127.0.0.1", "example.org"));
    assert_eq!(world.refresh(), 0);
    assert!(world.problems()[0].contains("is no IP address"), "{:?}", world.problems());
}

#[test]
fn files_that_fit_only_together_are_taken_together() {
    let cds = |name: &str| {
        format!(
            "resources: [{{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: {name}, type: STATIC}}]"
        )
    };
    let both = format!("{LDS}\n  cds_config: {{path_config_source: {{path: DIR/cds.yaml}}}}");
    let lds = |cluster: &str| discovered_listener(&format!("route_config: {}", table(cluster)));
    let mut world = World::start(&[
        ("bootstrap.yaml", &dynamic(&both)),
        ("lds.yaml", &lds("blue")),
        ("cds.yaml", &cds("blue")),
    ]);
    world.write("lds.yaml", &lds("green"));
    assert_eq!(world.refresh(), 0);
    assert!(world.problems()[0].contains("there is no cluster \"green\""));

    world.write("cds.yaml", &cds("green"));
    assert_eq!(world.refresh(), 1, "the listener refused before is tried again");
    assert_eq!(world.problems(), [""; 0]);
    assert!(world.now().clusters.contains_key("green"));
}

#[test]
fn a_port_in_use_refuses_the_file_that_wants_it() {
    let mut world =
        World::start(&[("bootstrap.yaml", &dynamic(LDS)), ("lds.yaml", "resources: []")]);
    world.port_in_use = true;
    world.write("lds.yaml", &discovered_listener(&format!("route_config: {}", table("one"))));
    assert_eq!(world.refresh(), 0);
    assert_eq!(world.problems(), ["lds.yaml:5:5: resources[0].address: in use"]);

    world.port_in_use = false;
    assert_eq!(world.refresh(), 1);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn yaml_from_the_command_line_is_merged_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "b.yaml", CLUSTERS);
    let load = |yaml: &str| {
        let sources = Sources {
            config_path: Some(directory.path().join("b.yaml")),
            config_yaml: Some(yaml.to_owned()),
        };
        Assembler::load(sources, Arc::default())
    };
    let assembler =
        load("static_resources: {clusters: [{name: three, type: STATIC}]}").ok().unwrap();
    assert_eq!(assembler.linked.snapshot.clusters.len(), 3);

    let errors =
        load("static_resources:\n  clusters: [{name: two, type: STATIC}]\n").err().unwrap();
    assert_eq!(
        errors[0].to_string(),
        "--config-yaml:2:21: static_resources.clusters[0].name: duplicate name \"two\""
    );
    let errors =
        load("admin: {address: {socket_address: {address: x, port_value: 1}}}").err().unwrap();
    assert!(errors[0].to_string().starts_with("--config-yaml:1:"), "{errors:?}");
}

#[test]
fn the_dump_shows_what_is_in_use() {
    let world = World::start(&[
        ("bootstrap.yaml", &dynamic(LDS)),
        ("lds.yaml", &discovered_listener(RDS)),
        ("rds.yaml", &rds("one")),
    ]);
    let configs = world.assembler.dump().configs(true);
    let types: Vec<&str> = configs.iter().filter_map(|it| it["@type"].as_str()).collect();
    let names = types.iter().map(|name| name.rsplit('.').next().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "EndpointsConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
    );
    assert_eq!(configs[1]["static_clusters"][0]["cluster"]["name"], "one");
    let listener = &configs[3]["dynamic_listeners"][0];
    assert_eq!(listener["active_state"]["version_info"], "1");
    assert_eq!(listener["active_state"]["listener"]["name"], "in");
    assert_eq!(configs[5]["dynamic_route_configs"][0]["route_config"]["name"], "t");
}

#[tokio::test]
async fn a_running_assembler_resolves_names_and_follows_its_files() {
    let local = tokio::task::LocalSet::new();
    local.run_until(resolves_names_and_follows_its_files()).await;
}

async fn resolves_names_and_follows_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let named = |port: &str| {
        CLUSTERS
            .replacen(
                "name: one",
                "name: one\n    type: STRICT_DNS\n    dns_lookup_family: V4_ONLY",
                1,
            )
            .replacen("address: 127.0.0.1", "address: localhost", 1)
            .replace("23102", port)
    };
    write(directory.path(), "b.yaml", &named("23102"));
    let config_path: PathBuf = directory.path().join("b.yaml");
    let sources = Sources { config_path: Some(config_path), config_yaml: None };
    let assembler = Assembler::load(sources, Arc::default()).ok().unwrap();
    let (sender, mut published) = tokio::sync::mpsc::unbounded_channel();
    let running = tokio::task::spawn_local(async move {
        let mut publish = |snapshot: &Arc<Snapshot>| {
            sender.send(Arc::clone(snapshot)).unwrap();
            Ok(())
        };
        assembler.run(caller(), &Node::default(), &mut publish, async |_| (), || ()).await
    });
    let first = published.recv().await.unwrap();
    let address = &first.clusters["one"].assignment.endpoints[0].address;
    assert_eq!(address.to_string(), "127.0.0.1:23101");

    write(directory.path(), "b.yaml", &named("23103"));
    let second = tokio::time::timeout(Duration::from_secs(5), published.recv()).await.unwrap();
    let second = second.unwrap();
    assert!(Arc::ptr_eq(&first.clusters["one"], &second.clusters["one"]));
    assert!(!Arc::ptr_eq(&first.clusters["two"], &second.clusters["two"]));
    running.abort();
}

#[test]
fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
    let authority = certs::Authority::self_signed("root").unwrap();
    let leaf = || authority.issue(&certs::Request::default().dns("localhost")).unwrap();
    let first = leaf();
    let tls = "    transport_socket:
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - {certificate_chain: {filename: DIR/chain.pem}, private_key: {filename: DIR/key.pem}}
";
    let secure = listener(&format!("route_config: {}", table("one"))) + "  " + tls;
    let plain = listener(&format!("route_config: {}", table("one")))
        .replace("name: in", "name: plain")
        .replace("23100", "23104");
    let bootstrap = format!("{CLUSTERS}  listeners:\n{secure}{plain}");
    let files = [("bootstrap.yaml", bootstrap.as_str())];
    let errors = World::load(&files).err().unwrap();
    assert!(errors[0].starts_with("bootstrap.yaml:35:16: "), "{errors:?}");
    assert!(errors[0].contains("filter_chains[0].transport_socket.typed_config"), "{errors:?}");

    let pair = [("chain.pem", first.chain_pem.as_str()), ("key.pem", first.key_pem.as_str())];
    let mut world = World::start(&[files[0], pair[0], pair[1]]);
    let started = Arc::clone(world.now());

    let second = leaf();
    world.write("chain.pem", &second.chain_pem);
    assert_eq!(world.refresh(), 0, "the new certificate does not fit the old key");
    world.write("key.pem", &second.key_pem);
    assert_eq!(world.refresh(), 1);
    let renewed = Arc::clone(world.now());
    assert!(!Arc::ptr_eq(&started.listeners["in"], &renewed.listeners["in"]));
    assert!(Arc::ptr_eq(&started.listeners["plain"], &renewed.listeners["plain"]));

    fs::remove_file(world.directory.path().join("key.pem")).unwrap();
    assert_eq!(world.refresh(), 0);
    let moved = bootstrap.replace("23104", "23105");
    world.write("bootstrap.yaml", &moved);
    assert_eq!(world.refresh(), 1, "a missing key holds back nothing else");
    assert!(Arc::ptr_eq(&renewed.listeners["in"], &world.now().listeners["in"]));
}

#[test]
fn secrets_come_from_files_too() {
    let authority = certs::Authority::self_signed("root").unwrap();
    let secret = || {
        let leaf = authority.issue(&certs::Request::default().dns("localhost")).unwrap();
        let (chain, key) = (Json::from(leaf.chain_pem), Json::from(leaf.key_pem));
        format!(
            "resources: [{{'@type': type.googleapis.com/envoy.service.discovery.v3.Resource, version: '7', \
             resource: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, \
             name: own, tls_certificate: {{certificate_chain: {{inline_string: {chain}}}, \
             private_key: {{inline_string: {key}}}}}}}}}]"
        )
    };
    let tls = "    transport_socket:
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs:
            - {name: own, sds_config: {path_config_source: {path: DIR/sds.yaml}}}
";
    let secure = listener(&format!("route_config: {}", table("one"))) + "  " + tls;
    let bootstrap = format!("{CLUSTERS}  listeners:\n{secure}");
    let without = [("bootstrap.yaml", bootstrap.as_str()), ("sds.yaml", "resources: []")];
    let errors = World::load(&without).err().unwrap();
    assert!(errors[0].contains("there is no secret `own`"), "{errors:?}");

    let mut world = World::start(&[without[0], ("sds.yaml", &secret())]);
    let first = Arc::clone(world.now());
    let dumped = world.assembler.dump().configs(false).pop().unwrap();
    let dumped = &dumped["dynamic_active_secrets"][0];
    assert_eq!(dumped["version_info"], "7");
    assert_eq!(dumped["secret"]["tls_certificate"]["private_key"]["inline_string"], "[redacted]");

    world.write("sds.yaml", &secret());
    assert_eq!(world.refresh(), 1);
    assert!(!Arc::ptr_eq(&first.listeners["in"], &world.now().listeners["in"]));

    world.write("sds.yaml", &secret().replace("BEGIN CERTIFICATE", "BEGIN NOTHING"));
    assert_eq!(world.refresh(), 0, "the last good certificate stays");
}

#[test]
fn binary_files_are_checked_strictly() {
    use prost::{Message, Name as _};
    use xds::envoy::config::listener::v3::Listener;
    use xds::envoy::service::discovery::v3::DiscoveryResponse;

    let response = |listener: Vec<u8>| {
        let any = prost_types::Any { type_url: Listener::type_url(), value: listener };
        DiscoveryResponse { resources: vec![any], ..Default::default() }.encode_to_vec()
    };
    let text = discovered_listener(&format!("route_config: {}", table("one")));
    let document = xds::yaml::Document::new("x", text);
    let read: DiscoveryResponse = document.read().unwrap();
    let mut world = World::start(&[
        ("bootstrap.yaml", &dynamic(&LDS.replace("lds.yaml", "lds.pb"))),
        ("lds.pb", ""),
    ]);
    let path = world.directory.path().join("lds.pb");

    let mut unknown = read.resources[0].value.clone();
    prost::encoding::uint32::encode(4001, &1, &mut unknown);
    fs::write(&path, response(unknown)).unwrap();
    assert_eq!(world.refresh(), 0);
    assert_eq!(
        world.problems(),
        [
            "lds.pb: resources[0]: field number 4001 of envoy.config.listener.v3.Listener is not supported"
        ]
    );

    fs::write(&path, response(read.resources[0].value.clone())).unwrap();
    assert_eq!(world.refresh(), 1);
    assert!(world.now().listeners.contains_key("in"));
}

#[test]
fn management_servers_that_cannot_be_reached_are_refused_with_their_place() {
    let found = "http_filters:
          - name: found
            config_discovery: {config_source: {ads: {}}, type_urls: [x/a.B]}";
    let listener = listener("rds: {route_config_name: r, config_source: {ads: {}}}");
    let listener = listener.replace("http_filters:", found);
    let cds = "{api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: none}}]}}";
    let dynamic = format!("dynamic_resources: {{cds_config: {cds}}}");
    let text = format!("{CLUSTERS}  listeners:\n{listener}\n{dynamic}\n");
    let errors = World::load(&[("bootstrap.yaml", &text)]).err().unwrap();
    let tells = |what: &str| errors.iter().any(|error| error.contains(what));
    assert!(tells("rds.config_source.ads: needs dynamic_resources.ads_config"), "{errors:?}");
    assert!(tells("config_source.ads: needs dynamic_resources.ads_config"), "{errors:?}");
    assert!(
        tells("cds_config: \"none\" must be a cluster of static_resources, and not of type EDS"),
        "{errors:?}"
    );
}

#[tokio::test]
async fn what_needs_the_agents_secrets_is_served_once_they_are_there() {
    tokio::task::LocalSet::new().run_until(serves_once_the_agents_secrets_are_there()).await;
}

async fn serves_once_the_agents_secrets_are_there() {
    let authority = certs::Authority::self_signed("root").unwrap();
    let identity = || {
        let leaf = authority.issue(&certs::Request::default().dns("localhost")).unwrap();
        let inline = |pem: String| crate::config::tls::DataSource::Inline(pem.into_bytes());
        let (chain, key) = (inline(leaf.chain_pem), inline(leaf.key_pem));
        let certificate = crate::config::tls::TlsCertificate { chain, key };
        Identity { certificate, roots: authority.trust_pem().into_bytes() }
    };
    let local = "sds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, \
         grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}";
    let tls = format!(
        "    transport_socket:
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs: [{{name: default, {local}}}]
            validation_context_sds_secret_config: {{name: ROOTCA, {local}}}
"
    );
    let routes = format!("route_config: {}", table("one"));
    let plain = listener(&routes).replace("name: in", "name: plain").replace("23100", "23104");
    let bootstrap = format!("{CLUSTERS}  listeners:\n{}  {tls}{plain}", listener(&routes));
    let errors = World::load(&[("bootstrap.yaml", &bootstrap)]).err().unwrap();
    assert!(errors[0].contains("\"sds-grpc\" must be a cluster"), "without an agent: {errors:?}");

    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bootstrap.yaml", &bootstrap);
    let config_path = Some(directory.path().join("bootstrap.yaml"));
    let (agent, obtained) = tokio::sync::watch::channel(None);
    let sources = Sources { config_path, config_yaml: None };
    let assembler = Assembler::load_with(sources, Arc::default(), Some(obtained)).unwrap();
    assert!(!assembler.snapshot().listeners.contains_key("in"));
    assert!(assembler.snapshot().listeners.contains_key("plain"));

    agent.send_replace(Some(identity()));
    let (sender, mut published) = tokio::sync::mpsc::unbounded_channel();
    let running = tokio::task::spawn_local(async move {
        let mut publish = |snapshot: &Arc<Snapshot>| {
            sender.send(Arc::clone(snapshot)).unwrap();
            Ok(())
        };
        assembler.run(caller(), &Node::default(), &mut publish, async |_| {}, || {}).await
    });
    let mut next =
        async || tokio::time::timeout(run::FIRST_SECRETS, published.recv()).await.unwrap().unwrap();
    let first = next().await;
    assert!(first.listeners.contains_key("in"));
    agent.send_replace(Some(identity()));
    let second = next().await;
    assert!(!Arc::ptr_eq(&first.listeners["in"], &second.listeners["in"]));
    assert!(Arc::ptr_eq(&first.listeners["plain"], &second.listeners["plain"]));
    running.abort();
}
