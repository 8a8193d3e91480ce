//! `/server_info`: version, state, age, arguments and node.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::AdminState;
use super::parameters::Parameters;
use super::reply::Reply;
use crate::config::bootstrap::Node;

/// Who this process is and how it was started.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// When it started.
    pub started: Instant,
    /// Its node, arguments included.
    pub node: Node,
    /// The arguments in force.
    pub options: CommandLine,
}

/// The command line in force (Envoy `admin.v3.CommandLineOptions`).
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "each field is Envoy's option of the same name")]
pub struct CommandLine {
    pub base_id: String,
    pub concurrency: usize,
    pub config_path: String,
    pub config_yaml: String,
    pub admin_address_path: String,
    pub log_level: String,
    pub component_log_level: String,
    pub log_format: String,
    pub log_path: String,
    pub service_cluster: String,
    pub service_node: String,
    pub service_zone: String,
    /// Seconds with unit, such as `45s`.
    pub drain_time: String,
    /// `Serve`, `Validate` or `InitOnly`.
    pub mode: String,
    pub disable_hot_restart: bool,
}

/// `/server_info` in Envoy's order.
#[derive(Serialize)]
struct Info<'a> {
    version: String,
    state: &'static str,
    uptime_current_epoch: String,
    uptime_all_epochs: String,
    hot_restart_version: &'static str,
    command_line_options: &'a CommandLine,
    node: Value,
}

pub(super) fn answer(state: &AdminState, _: &Parameters) -> Reply {
    let info = &state.info;
    let uptime = format!("{}s", info.started.elapsed().as_secs());
    Reply::json(&Info {
        version: version(),
        state: state.control.state().name(),
        uptime_current_epoch: uptime.clone(),
        uptime_all_epochs: uptime,
        hot_restart_version: "disabled",
        command_line_options: &info.options,
        node: node(&info.node),
    })
}

/// In Envoy's form: revision/version/status/build/TLS library.
fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("outrigger/{}/Clean/{build}/rustls", env!("CARGO_PKG_VERSION"))
}

/// The node as Envoy prints it: fields without a value are left out.
fn node(node: &Node) -> Value {
    let (region, zone, sub_zone) = &node.locality;
    let given = |fields: &[(&'static str, Value)]| -> BTreeMap<_, _> {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        fields.iter().filter(|(_, value)| !empty(value)).cloned().collect()
    };
    let locality =
        given(&[("region", json!(region)), ("zone", json!(zone)), ("sub_zone", json!(sub_zone))]);
    json!(given(&[
        ("id", json!(node.id)),
        ("cluster", json!(node.cluster)),
        ("metadata", node.metadata.clone()),
        ("locality", json!(locality)),
        ("user_agent_name", json!("outrigger")),
        ("user_agent_version", json!(env!("CARGO_PKG_VERSION"))),
    ]))
}
