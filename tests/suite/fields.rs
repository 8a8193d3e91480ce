//! `outrigger fields`: what of a configuration is accepted without effect, each with the reason.

use std::process::Output;

use harness::{Program, json};
use prost::Message;
use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use xds::yaml::Document;

const BOOTSTRAP: &str = "
static_resources:
  clusters:
  - name: one
    type: EDS
    track_cluster_stats: {}
    common_lb_config: {update_merge_window: 1s}
    eds_cluster_config: {eds_config: {path_config_source: {path: /eds.yaml}}}
  - name: two
    type: EDS
    common_lb_config: {update_merge_window: 1s}
    eds_cluster_config: {eds_config: {path_config_source: {path: /eds.yaml}}}
";

fn fields(arguments: &[&str]) -> Output {
    std::process::Command::new(Program::Outrigger.path().unwrap())
        .arg("fields")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn every_ignored_field_is_listed_with_its_reason() {
    let output = fields(&[]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 50, "{text}");
    assert!(text.contains("stats.PluginConfig.metrics: "), "{text}");
    for line in text.lines() {
        let (field, reason) = line.split_once(": ").unwrap();
        assert!(field.contains('.') && reason.len() > 5, "{line}");
    }
}

#[test]
fn of_a_configuration_only_what_it_sets_is_listed() {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), BOOTSTRAP).unwrap();
    let output = fields(&[file.path().to_str().unwrap(), "--output", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let clusters = "Bootstrap.static_resources.clusters[]";
    let row = |row: &serde_json::Value| json!([row["field"], row["count"]]);
    let seen: Vec<_> = rows.as_array().unwrap().iter().map(row).collect();
    assert_eq!(
        seen,
        [
            json!([format!("{clusters}.common_lb_config.update_merge_window"), 2]),
            json!([format!("{clusters}.track_cluster_stats"), 1]),
        ]
    );
}

#[test]
fn recorded_responses_are_read_of_both_kinds() {
    let text = "{name: one, common_lb_config: {update_merge_window: 1s}}";
    let cluster: Cluster = Document::new("x", text).read().unwrap();
    let cluster = Any::from_msg(&cluster).unwrap();
    let type_url = cluster.type_url.clone();
    let whole = DiscoveryResponse {
        type_url: type_url.clone(),
        resources: vec![cluster.clone()],
        ..DiscoveryResponse::default()
    };
    let resource = Resource { name: "one".into(), resource: Some(cluster), ..Resource::default() };
    let changed = DeltaDiscoveryResponse {
        type_url: type_url.clone(),
        resources: vec![resource],
        removed_resources: vec!["two".into()],
        ..DeltaDiscoveryResponse::default()
    };
    let gone = DeltaDiscoveryResponse {
        type_url,
        removed_resources: vec!["two".into()],
        ..DeltaDiscoveryResponse::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = "Cluster.common_lb_config.update_merge_window (1x): ";
    for (bytes, lines) in
        [(whole.encode_to_vec(), 1), (changed.encode_to_vec(), 1), (gone.encode_to_vec(), 0)]
    {
        let file = folder.path().join("response.pb");
        std::fs::write(&file, bytes).unwrap();
        let output = fields(&[file.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with(path)).count(), lines, "{text}");
        assert_eq!(text.lines().count(), lines, "{text}");
    }
}

#[test]
fn what_is_no_configuration_is_told() {
    let output = fields(&["/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot read /nowhere.yaml"));
}
