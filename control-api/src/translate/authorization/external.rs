//! Authorization services: the `envoyExtAuthzHttp` and `envoyExtAuthzGrpc` among the mesh's extension providers.

use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
use xds::envoy::config::core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri};
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use xds::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService,
};
use xds::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, StringMatcher};
use xds::envoy::r#type::v3::{HttpStatus, StatusCode};

use super::{EXTERNAL, HTTP_RBAC, NETWORK_RBAC, matcher};
use crate::model::Mesh;
use crate::model::duration::Duration;
use crate::model::istio::extension_provider::{ExtAuthzGrpc, ExtAuthzHttp, RequestBody};
use crate::translate::{providers, values};

/// What the names of metadata of the policies that ask services begin with.
pub(super) const STAT_PREFIX: &str = "istio_ext_authz_";
/// How long a service may take unless its provider says so.
const TIMEOUT: Duration = Duration::from_secs(600);

/// An authorization service.
pub(super) struct Service {
    http: ExtAuthz,
    network: Option<NetworkExtAuthz>,
}

/// The service of this name; none if there is no such provider, or something is wrong with it.
pub(super) fn service(mesh: &Mesh, name: &str) -> Option<Service> {
    let provider = providers::named(mesh, name)?;
    if let Some(http) = &provider.envoy_ext_authz_http {
        return over_http(mesh, http);
    }
    over_grpc(mesh, provider.envoy_ext_authz_grpc.as_ref()?)
}

impl Service {
    /// The filter that asks it about requests that one of its policies fits.
    pub(super) fn http_filter(self, name: &str) -> HttpFilter {
        let filter =
            ExtAuthz { filter_enabled_metadata: Some(fitting(HTTP_RBAC, name)), ..self.http };
        values::http_filter("envoy.filters.http.ext_authz", &filter)
    }

    /// The same for connections; none if it speaks HTTP.
    pub(super) fn network_filter(self, name: &str) -> Option<Filter> {
        let filter = NetworkExtAuthz {
            filter_enabled_metadata: Some(fitting(NETWORK_RBAC, name)),
            ..self.network?
        };
        Some(values::network_filter("envoy.filters.network.ext_authz", &filter))
    }
}

fn fitting(filter: &str, name: &str) -> MetadataMatcher {
    let key = format!("{STAT_PREFIX}shadow_effective_policy_id");
    let prefix = matcher::prefix(&format!("{EXTERNAL}-{name}"));
    matcher::metadata(filter, &[&key], matcher::text_value(prefix))
}

fn over_http(mesh: &Mesh, provider: &ExtAuthzHttp) -> Option<Service> {
    let target = providers::cluster(mesh, &provider.service, provider.port)?;
    let prefix_fits = provider.path_prefix.is_empty() || provider.path_prefix.starts_with('/');
    let lists = [
        &provider.include_request_headers_in_check,
        &provider.include_headers_in_check,
        &provider.headers_to_downstream_on_deny,
        &provider.headers_to_downstream_on_allow,
        &provider.headers_to_upstream_on_allow,
    ];
    if !prefix_fits || lists.iter().any(|list| list.iter().any(|it| it == "*")) {
        return None;
    }
    let header = |(key, value): (&String, &String)| HeaderValue {
        key: key.clone(),
        value: value.clone(),
        ..HeaderValue::default()
    };
    let added = &provider.include_additional_headers_in_check;
    let request = (!added.is_empty()).then(|| AuthorizationRequest {
        headers_to_add: added.iter().map(header).collect(),
        ..AuthorizationRequest::default()
    });
    let response = AuthorizationResponse {
        allowed_upstream_headers: headers(&provider.headers_to_upstream_on_allow),
        allowed_client_headers: headers(&provider.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: headers(&provider.headers_to_downstream_on_allow),
        ..AuthorizationResponse::default()
    };
    let service = HttpService {
        path_prefix: provider.path_prefix.clone(),
        server_uri: Some(HttpUri {
            uri: format!("http://{}", target.host),
            http_upstream_type: Some(HttpUpstreamType::Cluster(target.cluster)),
            timeout: Some(values::duration(provider.timeout.unwrap_or(TIMEOUT))),
        }),
        authorization_request: request,
        authorization_response: Some(response).filter(|it| *it != AuthorizationResponse::default()),
    };
    let http = ExtAuthz {
        allowed_headers: headers(&provider.include_request_headers_in_check)
            .or_else(|| headers(&provider.include_headers_in_check)),
        ..ext_authz(
            Services::HttpService(service),
            provider.fail_open,
            &provider.status_on_error,
            provider.include_request_body_in_check.as_ref(),
        )?
    };
    Some(Service { http, network: None })
}

fn over_grpc(mesh: &Mesh, provider: &ExtAuthzGrpc) -> Option<Service> {
    let target = providers::cluster(mesh, &provider.service, provider.port)?;
    let timeout = Some(values::duration(provider.timeout.unwrap_or(TIMEOUT)));
    let service = GrpcService { timeout, ..target.grpc() };
    let http = ext_authz(
        Services::GrpcService(service.clone()),
        provider.fail_open,
        &provider.status_on_error,
        provider.include_request_body_in_check.as_ref(),
    )?;
    let network = NetworkExtAuthz {
        stat_prefix: "tcp.".to_owned(),
        grpc_service: Some(service),
        failure_mode_allow: provider.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        ..NetworkExtAuthz::default()
    };
    Some(Service { http, network: Some(network) })
}

/// What both forms have; none if the status for errors is no status.
fn ext_authz(
    service: Services,
    fail_open: bool,
    status: &str,
    body: Option<&RequestBody>,
) -> Option<ExtAuthz> {
    let status_on_error = match status {
        "" => None,
        status => {
            let code = StatusCode::try_from(status.parse::<i32>().ok()?).ok()?;
            Some(HttpStatus { code: code.into() })
        }
    };
    Some(ExtAuthz {
        services: Some(service),
        failure_mode_allow: fail_open,
        status_on_error,
        transport_api_version: ApiVersion::V3.into(),
        with_request_body: body.map(|it| BufferSettings {
            max_request_bytes: it.max_request_bytes,
            allow_partial_message: it.allow_partial_message,
            pack_as_bytes: it.pack_as_bytes,
        }),
        ..ExtAuthz::default()
    })
}

fn headers(names: &[String]) -> Option<ListStringMatcher> {
    let pattern = |name: &String| StringMatcher { ignore_case: true, ..matcher::pattern(name) };
    (!names.is_empty()).then(|| ListStringMatcher { patterns: names.iter().map(pattern).collect() })
}
