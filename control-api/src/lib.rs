//! Outrigger's control plane. It is not there yet.
//!
//! It will read Istio and Gateway API objects, and hand each proxy its Envoy v3 resources over ADS.
//! Until then the proxy takes its configuration from files.

/// What the program says instead of serving.
pub const NOT_THERE_YET: &str = "outrigger-control: the control plane is not there yet; \
     configure the proxy with files (`outrigger -c bootstrap.yaml`, LDS, CDS, RDS, EDS and SDS from \
     `path_config_source`)";
