//! What is spoken to endpoints: the `HttpProtocolOptions` extension, or the deprecated fields of a cluster.

use std::collections::HashMap;

use http::header::HOST;
use prost_types::Any;
use xds::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as Common,
    UpstreamHttpProtocolOptions,
};
use xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use xds::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

use super::errors::{At, Result, refuse, required};
use super::extension::{unpack, unsupported};
use super::http_options::{common_http, http1, http2};
use super::value::{enumeration, header_name};
use crate::config::cluster::{UpstreamHttp, UpstreamProtocol};

/// The key Envoy looks for; it is the name of the message.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The deprecated fields of a cluster.
pub(super) struct Legacy<'a> {
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) upstream: Option<&'a UpstreamHttpProtocolOptions>,
    pub(super) common: Option<&'a Common>,
    pub(super) http1: Option<&'a Http1ProtocolOptions>,
    pub(super) http2: Option<&'a Http2ProtocolOptions>,
    pub(super) protocol_selection: i32,
}

impl Legacy<'_> {
    /// The first field that the extension would make Envoy overlook.
    fn overlooked(&self) -> Option<&'static str> {
        let fields = [
            (self.upstream.is_some(), "upstream_http_protocol_options"),
            (self.common.is_some(), "common_http_protocol_options"),
            (self.http1.is_some(), "http_protocol_options"),
            (self.http2.is_some(), "http2_protocol_options"),
        ];
        fields.into_iter().find_map(|(set, field)| set.then_some(field))
    }

    fn decode(&self) -> Result<UpstreamHttp> {
        let selection = enumeration("protocol_selection", self.protocol_selection)?;
        let protocol = match (selection, self.http2) {
            (ClusterProtocolSelection::UseDownstreamProtocol, _) => UpstreamProtocol::Downstream,
            (ClusterProtocolSelection::UseConfiguredProtocol, Some(_)) => UpstreamProtocol::Http2,
            (ClusterProtocolSelection::UseConfiguredProtocol, None) => UpstreamProtocol::Http1,
        };
        let fields =
            ["common_http_protocol_options", "http_protocol_options", "http2_protocol_options"];
        build(protocol, self.upstream, (self.common, self.http1, self.http2), fields)
    }
}

/// The protocol of a cluster and its options.
pub(super) fn upstream_http(
    extensions: &HashMap<String, Any>,
    legacy: &Legacy<'_>,
) -> Result<UpstreamHttp> {
    let mut names: Vec<_> = extensions.keys().map(String::as_str).collect();
    names.sort_unstable();
    if let Some(name) = names.into_iter().find(|name| *name != KEY) {
        let field = format!("typed_extension_protocol_options[{name:?}]");
        return refuse(&field, format!("only {KEY} is supported"));
    }
    let mut http = match extensions.get(KEY) {
        Some(any) => {
            if let Some(field) = legacy.overlooked() {
                return refuse(
                    field,
                    "cannot be set together with typed_extension_protocol_options",
                );
            }
            extension(any).at(&format!("typed_extension_protocol_options[{KEY:?}]"))?
        }
        None => legacy.decode()?,
    };
    if http.max_requests_per_connection == 0 {
        http.max_requests_per_connection = legacy.max_requests_per_connection.unwrap_or(0);
    }
    Ok(http)
}

fn extension(any: &Any) -> Result<UpstreamHttp> {
    let Some(proto) = unpack::<HttpProtocolOptions>(any)? else { return unsupported(any) };
    let HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: upstream,
        upstream_protocol_options,
    } = &proto;
    let (common, upstream) = (common.as_ref(), upstream.as_ref());
    let reason = "required: explicit_http_config, use_downstream_protocol_config or auto_config";
    let Some(options) = upstream_protocol_options else { return refuse("", reason) };
    let (protocol, http1, http2, field) = match options {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config }) => {
            match required("explicit_http_config", protocol_config)? {
                ProtocolConfig::HttpProtocolOptions(http1) => {
                    (UpstreamProtocol::Http1, Some(http1), None, "explicit_http_config")
                }
                ProtocolConfig::Http2ProtocolOptions(http2) => {
                    (UpstreamProtocol::Http2, None, Some(http2), "explicit_http_config")
                }
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: http1,
            http2_protocol_options: http2,
        }) => {
            let field = "use_downstream_protocol_config";
            (UpstreamProtocol::Downstream, http1.as_ref(), http2.as_ref(), field)
        }
        UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options: http1,
            http2_protocol_options: http2,
        }) => (UpstreamProtocol::Alpn, http1.as_ref(), http2.as_ref(), "auto_config"),
    };
    let http1_field = format!("{field}.http_protocol_options");
    let http2_field = format!("{field}.http2_protocol_options");
    let fields = ["common_http_protocol_options", &http1_field, &http2_field];
    build(protocol, upstream, (common, http1, http2), fields)
}

type Options<'a> =
    (Option<&'a Common>, Option<&'a Http1ProtocolOptions>, Option<&'a Http2ProtocolOptions>);

/// Puts the options together; `fields` says where the three of them stand.
fn build(
    protocol: UpstreamProtocol,
    upstream: Option<&UpstreamHttpProtocolOptions>,
    (common, http1_options, http2_options): Options<'_>,
    fields: [&str; 3],
) -> Result<UpstreamHttp> {
    let common = common_http(common).at(fields[0])?;
    let http1 = http1(http1_options).at(fields[1])?;
    if http1.proper_case {
        let reason = "header_key_format is supported towards clients only";
        return refuse(fields[1], reason);
    }
    let absent = UpstreamHttpProtocolOptions::default();
    let UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
        upstream.unwrap_or(&absent);
    let sni_header = match override_auto_sni_header.as_str() {
        "" | ":authority" => None,
        name => {
            let field = "upstream_http_protocol_options.override_auto_sni_header";
            Some(header_name(name).at(field)?)
        }
    };
    Ok(UpstreamHttp {
        protocol,
        http2: http2(http2_options).at(fields[2])?,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        max_stream_duration: common.max_stream_duration,
        auto_sni: *auto_sni,
        override_auto_sni_header: sni_header.filter(|name| *name != HOST),
        auto_san_validation: *auto_san_validation,
        enable_trailers: http1.enable_trailers,
        max_headers_count: common.max_headers_count,
        max_response_headers: common.max_response_headers_kb * 1024,
    })
}
