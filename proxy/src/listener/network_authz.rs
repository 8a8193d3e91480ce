//! The network filter `ext_authz`: a service decides whether a connection goes on.

use std::sync::Arc;
use std::time::Instant;

use xds::envoy::service::auth::v3::CheckResponse;
use xds::envoy::service::auth::v3::check_response::HttpResponse;

use crate::call;
use crate::config::ext_authz::NetworkAuthz;
use crate::http::connection::Downstream;
use crate::http::filter::ext_authz::{METHOD, check};
use crate::net::structure;
use crate::telemetry::metrics::NetworkAuthzStats;
use crate::worker::Worker;

/// The namespace of what services say of connections.
const NAMESPACE: &str = "envoy.filters.network.ext_authz";

/// A check under way.
struct Active(Arc<NetworkAuthzStats>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

/// Asks the service about a connection.
///
/// # Errors
/// Why it goes no further.
pub(super) async fn check(
    worker: &Worker,
    config: &NetworkAuthz,
    downstream: &Downstream,
) -> Result<(), &'static str> {
    let stats = worker.filter_stats.network_authz(&config.stat_prefix);
    let wanted = config.enabled_metadata.as_ref();
    if !wanted.is_none_or(|it| it.matches(downstream.dynamic.borrow().metadata())) {
        stats.disabled.inc();
        return Ok(());
    }
    stats.total.inc();
    stats.active.inc();
    let active = Active(Arc::clone(&stats));
    let question = check::of_connection(downstream, config.certificate, config.tls_session);
    let begin = Instant::now();
    let asking =
        call::grpc::unary::<CheckResponse>(&worker.caller, &config.service, METHOD, &question);
    let answer = asking.await;
    drop(active);
    let error = match answer {
        Ok(CheckResponse { status, http_response, dynamic_metadata }) => {
            let is_allowed = status.is_none_or(|status| status.code == 0);
            let mut said = dynamic_metadata.as_ref().map(structure::json).unwrap_or_default();
            if !said.is_empty() {
                if is_allowed {
                    let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                    said.insert("ext_authz_duration".to_owned(), took.into());
                }
                downstream.dynamic.borrow_mut().merge(NAMESPACE, said);
            }
            if is_allowed {
                stats.ok.inc();
                return Ok(());
            }
            matches!(http_response, Some(HttpResponse::ErrorResponse(_)))
        }
        Err(status) => {
            tracing::debug!(cluster = &*config.service.cluster, %status, "ext_authz");
            true
        }
    };
    if !error {
        stats.denied.inc();
        stats.cx_closed.inc();
        return Err("ext_authz_denied");
    }
    stats.error.inc();
    if config.failure_mode_allow {
        stats.failure_mode_allowed.inc();
        return Ok(());
    }
    stats.cx_closed.inc();
    Err("ext_authz_error")
}
