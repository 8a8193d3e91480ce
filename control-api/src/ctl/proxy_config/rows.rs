//! The lines of a kind of resources, with istioctl's columns.

use std::cmp::Ordering;
use std::time::SystemTime;

use clap::Args;
use serde_json::Value;

use super::{Section, secrets};
use crate::ctl::table::Table;

/// Which resources are shown.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only clusters and endpoints of services whose name holds this
    #[arg(long)]
    fqdn: Option<String>,

    /// Only this port
    #[arg(long)]
    port: Option<u32>,

    /// Only clusters and endpoints of this subset
    #[arg(long)]
    subset: Option<String>,

    /// Only resources of this name
    #[arg(long)]
    name: Option<String>,
}

impl Filter {
    /// The resources that are wanted, in the order in which they are shown.
    pub(super) fn resources(&self, kind: Section, dump: &Value) -> Vec<Value> {
        let all = kind.resources(dump).into_iter();
        let mut wanted: Vec<Value> = all.filter(|it| self.wants(kind, it)).cloned().collect();
        wanted.sort_by(|a, b| order(kind, a, b));
        wanted
    }

    fn wants(&self, kind: Section, resource: &Value) -> bool {
        let own = name(resource);
        let cluster = ClusterName::of(own);
        let of_cluster =
            |fits: bool| !matches!(kind, Section::Clusters | Section::Endpoints) || fits;
        let port_fits = |port: u32| match kind {
            Section::Listeners => port_of(resource) == u64::from(port),
            Section::Clusters | Section::Endpoints => cluster.port == port.to_string(),
            Section::Routes => own == port.to_string(),
            Section::Secrets => true,
        };
        self.name.as_ref().is_none_or(|it| it == own)
            && self.fqdn.as_ref().is_none_or(|it| of_cluster(cluster.host.contains(it.as_str())))
            && self.subset.as_ref().is_none_or(|it| of_cluster(cluster.subset == it))
            && self.port.is_none_or(port_fits)
    }
}

/// What a cluster's name says: `DIRECTION|PORT|SUBSET|HOST`, or only itself.
struct ClusterName<'a> {
    direction: &'a str,
    port: &'a str,
    subset: &'a str,
    host: &'a str,
}

impl<'a> ClusterName<'a> {
    fn of(name: &'a str) -> Self {
        match name.splitn(4, '|').collect::<Vec<_>>()[..] {
            [direction, port, subset, host] => Self { direction, port, subset, host },
            _ => Self { direction: "-", port: "-", subset: "-", host: name },
        }
    }
}

fn text<'a>(of: &'a Value, path: &str) -> &'a str {
    of.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn name(resource: &Value) -> &str {
    let cluster = text(resource, "/cluster_name");
    if cluster.is_empty() { text(resource, "/name") } else { cluster }
}

fn port_of(listener: &Value) -> u64 {
    let port = listener.pointer("/address/socket_address/port_value");
    port.and_then(Value::as_u64).unwrap_or_default()
}

fn order(kind: Section, a: &Value, b: &Value) -> Ordering {
    let key = |it| {
        let cluster = ClusterName::of(name(it));
        let number = cluster.port.parse::<u32>().unwrap_or_default();
        (cluster.host.to_owned(), cluster.subset.to_owned(), number, cluster.direction.to_owned())
    };
    let by_number = |it| (name(it).parse::<u32>().unwrap_or(u32::MAX), name(it).to_owned());
    match kind {
        Section::Listeners => (port_of(a), text(a, "/address/socket_address/address"))
            .cmp(&(port_of(b), text(b, "/address/socket_address/address"))),
        Section::Routes => by_number(a).cmp(&by_number(b)),
        _ => key(a).cmp(&key(b)),
    }
}

/// The table of a kind.
pub(super) fn table(kind: Section, resources: &[Value]) -> String {
    let mut table = Table::new(match kind {
        Section::Clusters => {
            &["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"]
        }
        Section::Listeners => &["ADDRESSES", "PORT", "MATCH", "DESTINATION"],
        Section::Routes => &["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"],
        Section::Endpoints => &["ENDPOINT", "STATUS", "LOCALITY", "CLUSTER"],
        Section::Secrets => &secrets::HEAD,
    });
    for resource in resources {
        match kind {
            Section::Clusters => table.line(cluster(resource)),
            Section::Listeners => listener(resource, &mut table),
            Section::Routes => route(resource, &mut table),
            Section::Endpoints => endpoints(resource, &mut table),
            Section::Secrets => {
                secrets::lines(resource, SystemTime::now())
                    .into_iter()
                    .for_each(|it| table.line(it));
            }
        }
    }
    if table.is_empty() { format!("no {}\n", kind.name()) } else { table.text() }
}

fn cluster(cluster: &Value) -> [String; 6] {
    let ClusterName { direction, port, subset, host } = ClusterName::of(name(cluster));
    let kind = if cluster.get("cluster_type").is_some() {
        text(cluster, "/cluster_type/name")
    } else {
        // Protobuf leaves out what is the default.
        Some(text(cluster, "/type")).filter(|it| !it.is_empty()).unwrap_or("STATIC")
    };
    let subset = if subset.is_empty() { "-" } else { subset };
    let rule = managed_by(cluster);
    [host, port, subset, direction, kind, &rule].map(ToOwned::to_owned)
}

/// `NAME.NAMESPACE` of the object that the metadata `istio` names.
fn managed_by(resource: &Value) -> String {
    let path = text(resource, "/metadata/filter_metadata/istio/config");
    match path.split('/').collect::<Vec<_>>()[..] {
        [.., "namespaces", namespace, _, name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

fn listener(listener: &Value, table: &mut Table) {
    let address = text(listener, "/address/socket_address/address").to_owned();
    let port = port_of(listener).to_string();
    let chains = listener["filter_chains"].as_array().into_iter().flatten();
    for chain in chains.chain(listener.get("default_filter_chain")) {
        let line = [address.clone(), port.clone(), matched(chain), destination(chain)];
        table.line(line);
    }
}

/// What a filter chain is for.
fn matched(chain: &Value) -> String {
    let rule = &chain["filter_chain_match"];
    let list = |key: &str| -> Vec<&str> {
        rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let mut parts = Vec::new();
    if !list("server_names").is_empty() {
        parts.push(format!("SNI: {}", list("server_names").join(",")));
    }
    if let Some(transport) = rule["transport_protocol"].as_str() {
        parts.push(format!("Trans: {transport}"));
    }
    if !list("application_protocols").is_empty() {
        parts.push(format!("App: {}", list("application_protocols").join(",")));
    }
    let port = rule["destination_port"].as_u64().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    let ranges = rule["prefix_ranges"].as_array().into_iter().flatten();
    let ranges: Vec<String> = ranges
        .map(|it| {
            format!(
                "{}/{}",
                text(it, "/address_prefix"),
                it["prefix_len"].as_u64().unwrap_or_default()
            )
        })
        .collect();
    if !ranges.is_empty() {
        parts.push(format!("Addr: {}{port}", ranges.join(",")));
    } else if !port.is_empty() {
        parts.push(format!("Addr: *{port}"));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

/// Where a filter chain leads.
fn destination(chain: &Value) -> String {
    for filter in chain["filters"].as_array().into_iter().flatten() {
        let config = &filter["typed_config"];
        let url = text(config, "/@type");
        if url.ends_with(".HttpConnectionManager") {
            let routes = text(config, "/rds/route_config_name");
            return match (routes, config.get("route_config")) {
                ("", Some(own)) => inline(own),
                ("", None) => "HTTP".to_owned(),
                (routes, _) => format!("Route: {routes}"),
            };
        }
        if url.ends_with(".TcpProxy") {
            return to_cluster(text(config, "/cluster"));
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

fn inline(routes: &Value) -> String {
    let hosts = routes["virtual_hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found: Vec<&Value> =
        hosts.iter().filter_map(|it| it["routes"].as_array()).flatten().collect();
    match found[..] {
        [only]
            if text(only, "/match/prefix") == "/" && only.pointer("/route/cluster").is_some() =>
        {
            to_cluster(text(only, "/route/cluster"))
        }
        _ => {
            let matches: Vec<String> = found.iter().map(|it| route_match(it)).collect();
            format!("Inline Route: {}", matches.join(", "))
        }
    }
}

fn to_cluster(name: &str) -> String {
    if name.is_empty() || name.contains("Cluster") {
        name.to_owned()
    } else {
        format!("Cluster: {name}")
    }
}

fn route_match(route: &Value) -> String {
    let rule = &route["match"];
    for (key, star) in [("path_separated_prefix", "*"), ("prefix", "*"), ("path", "")] {
        if let Some(path) = rule[key].as_str() {
            return format!("{path}{star}");
        }
    }
    match rule.pointer("/safe_regex/regex").and_then(Value::as_str) {
        Some(regex) => format!("regex {regex}"),
        None => "*".to_owned(),
    }
}

fn route(routes: &Value, table: &mut Table) {
    let shown = Some(name(routes)).filter(|it| !it.is_empty()).unwrap_or("-").to_owned();
    for host in routes["virtual_hosts"].as_array().into_iter().flatten() {
        let domains = host["domains"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let domains: Vec<&str> = domains.collect();
        let more = domains.len().saturating_sub(2);
        let mut listed = domains.iter().take(2).copied().collect::<Vec<_>>().join(", ");
        if more > 0 {
            listed += &format!(" + {more} more...");
        }
        for route in host["routes"].as_array().into_iter().flatten() {
            let line = [
                shown.clone(),
                name(host).to_owned(),
                listed.clone(),
                route_match(route),
                managed_by(route),
            ];
            table.line(line);
        }
    }
}

fn endpoints(assignment: &Value, table: &mut Table) {
    let cluster = name(assignment);
    for locality in assignment["endpoints"].as_array().into_iter().flatten() {
        let parts =
            ["region", "zone", "sub_zone"].map(|it| text(locality, &format!("/locality/{it}")));
        let place = parts.iter().filter(|it| !it.is_empty()).copied().collect::<Vec<_>>().join("/");
        for endpoint in locality["lb_endpoints"].as_array().into_iter().flatten() {
            let address = &endpoint["endpoint"]["address"];
            let socket = &address["socket_address"];
            let shown = match text(address, "/pipe/path") {
                "" => format!(
                    "{}:{}",
                    text(socket, "/address"),
                    socket["port_value"].as_u64().unwrap_or_default()
                ),
                path => format!("unix://{path}"),
            };
            let status = Some(text(endpoint, "/health_status")).filter(|it| !it.is_empty());
            let status = status.filter(|it| *it != "UNKNOWN").unwrap_or("HEALTHY").to_owned();
            table.line([shown, status, place.clone(), cluster.to_owned()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(kind: Section, resources: &[Value]) -> Vec<Vec<String>> {
        let text = table(kind, resources);
        let cells = |line: &str| {
            line.split("   ")
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .map(ToOwned::to_owned)
                .collect()
        };
        text.lines().map(cells).collect()
    }

    #[test]
    fn clusters_are_told_by_the_parts_of_their_names() {
        let rule = "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/reviews";
        let dump = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "static_clusters": [{"cluster": {"name": "xds-grpc"}}],
            "dynamic_active_clusters": [
                {"cluster": {"name": "outbound|9080|v2|reviews.shop", "type": "EDS",
                    "metadata": {"filter_metadata": {"istio": {"config": rule}}}}},
                {"cluster": {"name": "outbound|9080||ratings.shop", "type": "EDS"}},
            ],
        }]});
        let filter = |fqdn: Option<&str>, port| Filter {
            fqdn: fqdn.map(Into::into),
            port,
            subset: None,
            name: None,
        };
        let all = filter(None, None).resources(Section::Clusters, &dump);
        let shown = lines(Section::Clusters, &all);
        assert_eq!(shown[1], ["ratings.shop", "9080", "-", "outbound", "EDS"]);
        assert_eq!(shown[2], ["reviews.shop", "9080", "v2", "outbound", "EDS", "reviews.shop"]);
        assert_eq!(shown[3], ["xds-grpc", "-", "-", "-", "STATIC"]);
        assert_eq!(filter(Some("reviews"), None).resources(Section::Clusters, &dump).len(), 1);
        assert_eq!(filter(None, Some(9080)).resources(Section::Clusters, &dump).len(), 2);
        assert_eq!(table(Section::Clusters, &[]), "no clusters\n");
    }

    #[test]
    fn listeners_say_what_matches_and_where_it_leads() {
        let http = |inside: Value| {
            let mut config = json!({"@type": "x.HttpConnectionManager"});
            config.as_object_mut().unwrap().extend(inside.as_object().unwrap().clone());
            json!([{"typed_config": config}])
        };
        let listener = json!({
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
            "filter_chains": [
                {"filter_chain_match": {"transport_protocol": "tls", "destination_port": 9080},
                    "filters": http(json!({"rds": {"route_config_name": "9080"}}))},
                {"filters": [{"typed_config": {"@type": "x.TcpProxy", "cluster": "inbound|80||"}}]},
            ],
        });
        let shown = lines(Section::Listeners, &[listener]);
        assert_eq!(shown[1], ["0.0.0.0", "15006", "Trans: tls; Addr: *:9080", "Route: 9080"]);
        assert_eq!(shown[2], ["0.0.0.0", "15006", "ALL", "Cluster: inbound|80||"]);
    }

    #[test]
    fn routes_and_endpoints_have_a_line_each() {
        let routes = json!({"name": "80", "virtual_hosts": [{
            "name": "all", "domains": ["a", "b", "c"],
            "routes": [{"match": {"prefix": "/"}}, {"match": {"safe_regex": {"regex": "/x.*"}}}],
        }]});
        let shown = lines(Section::Routes, &[routes]);
        assert_eq!(shown[1], ["80", "all", "a, b + 1 more...", "/*"]);
        assert_eq!(shown[2][3], "regex /x.*");
        let assignment = json!({"cluster_name": "c", "endpoints": [{
            "locality": {"region": "r", "zone": "z"},
            "lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}},
                {"health_status": "DRAINING", "endpoint": {"address": {"pipe": {"path": "/s"}}}},
            ],
        }]});
        let shown = lines(Section::Endpoints, &[assignment]);
        assert_eq!(shown[1], ["10.0.0.1:80", "HEALTHY", "r/z", "c"]);
        assert_eq!(shown[2], ["unix:///s", "DRAINING", "r/z", "c"]);
    }
}
