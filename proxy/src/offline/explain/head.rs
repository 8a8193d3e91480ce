//! The head of a request as routes see it: checked, made canonical, its caller identified, as
//! [`crate::http::canonical`] does it to one that was sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};

use super::asked::Asked;
use super::route::Verdict;
use crate::config::http::HttpConnectionManager;
use crate::config::matcher::RequestHead;
use crate::http::path::{self, Canonical};
use crate::http::protocol::{self, Reject};
use crate::http::{forwarded, hop_by_hop, host, upgrade};
use crate::route::RouteTable;

/// A head that may be routed.
pub(super) struct Admitted {
    scheme: &'static str,
    authority: String,
    target: String,
    headers: HeaderMap,
    /// Whether the request counts as internal.
    pub(super) internal: bool,
}

impl Admitted {
    /// The head, for a request with this method.
    pub(super) fn view<'a>(&'a self, method: &'a Method) -> RequestHead<'a> {
        RequestHead {
            method,
            scheme: self.scheme,
            authority: &self.authority,
            path_and_query: &self.target,
            headers: &self.headers,
        }
    }
}

/// What is left of the request that is asked about when it comes to its routes.
///
/// # Errors
/// The answer of the connection manager, if it goes no further.
pub(super) fn admitted(
    asked: &Asked,
    config: &HttpConnectionManager,
    table: &RouteTable,
    local: SocketAddr,
) -> Result<Admitted, Verdict> {
    let refused = |reject: Reject| {
        let (status, details) = (reject.status.as_u16(), reject.details);
        Verdict::Refuse(format!("{status} ({details}): the request's head is not taken"))
    };
    let unwritable = |_| Verdict::Refuse("400: there is no such request in HTTP".to_owned());
    let request = Request::builder().method(&asked.method).uri(&asked.target).body(());
    let (mut parts, ()) = request.map_err(unwritable)?.into_parts();
    parts.headers.clone_from(&asked.headers);
    let host = HeaderValue::from_str(&asked.authority);
    parts.headers.insert(HOST, host.map_err(|error| unwritable(error.into()))?);
    let authority =
        protocol::check(&parts, &config.http1, &config.limits).map_err(refused)?.to_owned();
    let (strip_port, strip_dot) = (config.strip_port, config.strip_trailing_host_dot);
    let authority = host::stripped(&authority, strip_port, strip_dot, local.port()).into_owned();
    let target = match path::canonical(&asked.target, &config.path) {
        Canonical::Unchanged => asked.target.clone(),
        Canonical::Rewritten(path) => path,
        Canonical::Redirect(to) => {
            return Err(Verdict::Answer(format!("307 to {to}, the normal form of the path")));
        }
        Canonical::Reject(details) => {
            return Err(Verdict::Refuse(format!("400 ({details}): the path is not taken")));
        }
    };
    let mut headers = parts.headers;
    let action = config.limits.underscores;
    protocol::apply_underscores(&mut headers, action, parts.version).map_err(refused)?;
    let upgrades = upgrade::requested(&headers).is_some();
    hop_by_hop::strip_request(&mut headers, upgrades);
    headers.remove(HOST);
    if !config.proxy_100_continue {
        headers.remove(EXPECT);
    }
    let node = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let client = forwarded::Downstream::new(asked.source, local, asked.is_tls, node, false);
    let internal_only = &table.config().internal_only_headers;
    let caller = forwarded::apply(&mut headers, config, internal_only, &client);
    let scheme = forwarded::scheme(None, &headers, config, &client);
    Ok(Admitted { scheme, authority, target, headers, internal: caller.internal })
}
