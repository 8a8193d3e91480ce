//! What an authorization service has decided, read from a `CheckResponse`.

use http::StatusCode;
use serde_json::{Map, Value};
use xds::envoy::config::core::v3::HeaderValueOption;
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::service::auth::v3::check_response::HttpResponse;
use xds::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use xds::envoy::r#type::v3::HttpStatus;

use crate::config::header::AppendAction;

/// A header as a service names it; nothing says that it is a good one.
pub(super) type Header = (String, Vec<u8>);

/// A decision, and what becomes dynamic metadata.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) decision: Decision,
    pub(super) metadata: Map<String, Value>,
}

/// See [`Verdict`].
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// The request goes on, changed.
    Allowed(Box<Changes>),
    /// It is answered so.
    Denied(Box<Denial>),
    /// Nobody has decided, but it would be answered so.
    Failed(Box<Denial>),
    /// The answer makes no sense.
    Invalid,
}

impl Default for Decision {
    fn default() -> Self {
        Self::Failed(Box::default())
    }
}

/// What an allowed request and its response are changed by.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Headers of the request that replace others.
    pub(super) set: Vec<Header>,
    /// Those that are added.
    pub(super) add: Vec<Header>,
    /// Those whose value is appended to the one there is, if there is one.
    pub(super) append: Vec<Header>,
    /// Those that are removed.
    pub(super) remove: Vec<String>,
    /// Query parameters that replace others.
    pub(super) query_set: Vec<(String, String)>,
    /// Those that are removed.
    pub(super) query_remove: Vec<String>,
    /// Headers of the response.
    pub(super) response: Vec<(AppendAction, Header)>,
}

impl Changes {
    /// Whether the request stays as it is.
    pub(super) fn is_empty(&self) -> bool {
        self.add.is_empty() && !self.change_the_request()
    }

    /// Whether they may lead to another route.
    pub(super) fn change_the_request(&self) -> bool {
        let Self { set, add: _, append, remove, query_set, query_remove, response: _ } = self;
        !(set.is_empty()
            && append.is_empty()
            && remove.is_empty()
            && query_set.is_empty()
            && query_remove.is_empty())
    }
}

/// How a request is answered that is not allowed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Denial {
    /// None if the service does not care.
    pub(super) status: Option<StatusCode>,
    pub(super) headers: Vec<Header>,
    pub(super) body: Vec<u8>,
}

impl Verdict {
    /// What `response` says.
    pub(super) fn read(response: CheckResponse) -> Self {
        let CheckResponse { status, http_response, dynamic_metadata: outer } = response;
        let mut inner = None;
        let code = status.map_or(0, |status| status.code);
        let decision = match (code, http_response) {
            (0, Some(HttpResponse::OkResponse(mut response))) => {
                inner = response.dynamic_metadata.take();
                changes(response).map_or(Decision::Invalid, Decision::Allowed)
            }
            (0, _) => Decision::Allowed(Box::default()),
            (_, Some(HttpResponse::ErrorResponse(response))) => {
                denial(response, None, Decision::Failed)
            }
            (_, Some(HttpResponse::DeniedResponse(response))) => {
                denial(response, Some(StatusCode::FORBIDDEN), Decision::Denied)
            }
            (_, other) => {
                if let Some(HttpResponse::OkResponse(response)) = other {
                    inner = response.dynamic_metadata;
                }
                let status = Some(StatusCode::FORBIDDEN);
                Decision::Denied(Box::new(Denial { status, ..Denial::default() }))
            }
        };
        let metadata = inner.or(outer).as_ref().map(crate::net::structure::json);
        Self { decision, metadata: metadata.unwrap_or_default() }
    }
}

/// None if an action is unknown.
fn changes(response: OkHttpResponse) -> Option<Box<Changes>> {
    let OkHttpResponse {
        headers,
        headers_to_remove: remove,
        dynamic_metadata: _,
        response_headers_to_add,
        query_parameters_to_set,
        query_parameters_to_remove: query_remove,
    } = response;
    // As in Envoy, `append_action` means nothing here.
    let (append, set) = headers.into_iter().partition::<Vec<_>, _>(|it| it.append == Some(true));
    let to_response = |option| Some((action(&option)?, header(option)?));
    Some(Box::new(Changes {
        set: set.into_iter().filter_map(header).collect(),
        add: Vec::new(),
        append: append.into_iter().filter_map(header).collect(),
        remove,
        query_set: query_parameters_to_set.into_iter().map(|it| (it.key, it.value)).collect(),
        query_remove,
        response: response_headers_to_add.into_iter().map(to_response).collect::<Option<_>>()?,
    }))
}

fn denial(
    response: DeniedHttpResponse,
    default: Option<StatusCode>,
    decision: fn(Box<Denial>) -> Decision,
) -> Decision {
    let DeniedHttpResponse { status, headers, body } = response;
    let status = match status {
        None | Some(HttpStatus { code: 0 }) => default,
        Some(HttpStatus { code }) => {
            let status = u16::try_from(code).ok().and_then(|it| StatusCode::from_u16(it).ok());
            match status {
                Some(status) => Some(status),
                None => return Decision::Invalid,
            }
        }
    };
    // As in Envoy, what would be appended is left out.
    let headers = headers.into_iter().filter(|it| it.append != Some(true)).filter_map(header);
    let headers = headers.collect();
    decision(Box::new(Denial { status, headers, body: body.into_bytes() }))
}

fn header(option: HeaderValueOption) -> Option<Header> {
    let header = option.header?;
    let value = match header.raw_value.is_empty() {
        true => header.value.into_bytes(),
        false => header.raw_value,
    };
    Some((header.key.to_ascii_lowercase(), value))
}

fn action(option: &HeaderValueOption) -> Option<AppendAction> {
    Some(match option.append {
        Some(true) => AppendAction::AppendIfExistsOrAdd,
        Some(false) => AppendAction::OverwriteIfExistsOrAdd,
        None => match HeaderAppendAction::try_from(option.append_action).ok()? {
            HeaderAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
            HeaderAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
            HeaderAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
        },
    })
}
