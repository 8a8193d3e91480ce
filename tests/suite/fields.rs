//! `outrigger fields`: what of a configuration is accepted without effect, each with the reason.

use std::process::Output;

use harness::{Program, json};

const BOOTSTRAP: &str = "
static_resources:
  clusters:
  - name: one
    type: EDS
    track_cluster_stats: {}
    eds_cluster_config:
      eds_config: {initial_fetch_timeout: 1s, path_config_source: {path: /eds.yaml}}
  - name: two
    type: EDS
    eds_cluster_config:
      eds_config: {initial_fetch_timeout: 1s, path_config_source: {path: /eds.yaml}}
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
            json!([format!("{clusters}.eds_cluster_config.eds_config.initial_fetch_timeout"), 2]),
            json!([format!("{clusters}.track_cluster_stats"), 1]),
        ]
    );
}

#[test]
fn what_is_no_configuration_is_told() {
    let output = fields(&["/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot read /nowhere.yaml"));
}
