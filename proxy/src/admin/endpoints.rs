//! The table of admin paths: what each is for, its parameters, whether it changes something, who answers.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use http::{Method, StatusCode};

use super::parameters::Parameters;
use super::reply::Reply;
use super::{
    AdminState, Drain, certs, clusters, config_dump, home, listeners, logging, memory, ready,
    same_site, server_info, stats,
};

/// One path of the API.
pub(super) struct Endpoint {
    /// The path.
    pub(super) path: &'static str,
    /// Whether it changes something, and so needs POST.
    pub(super) changes: bool,
    /// What it is for.
    pub(super) help: &'static str,
    /// Parameters with their meaning.
    pub(super) parameters: &'static [(&'static str, &'static str)],
    answer: fn(&AdminState, &Parameters) -> Reply,
}

/// Wording as in Envoy's help.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    read("/", "Admin home page", &[], |_, _| home::page()),
    read("/certs", "print certs on machine", &[], certs::answer),
    read(
        "/clusters",
        "upstream cluster status",
        &[("filter", "Regular expression (Google re2) for filtering clusters by name")],
        clusters::answer,
    ),
    read(
        "/config_dump",
        "dump current Envoy configs",
        config_dump::PARAMETERS,
        config_dump::answer,
    ),
    change("/drain_listeners", "drain listeners", DRAIN_PARAMETERS, |state, parameters| {
        state.control.drain_listeners(Drain {
            graceful: parameters.has("graceful"),
            inbound_only: parameters.has("inboundonly"),
            skip_exit: parameters.has("skip_exit"),
        });
        Reply::ok()
    }),
    change("/healthcheck/fail", "cause the server to fail health checks", &[], |state, _| {
        state.control.fail_health_checks(true);
        Reply::ok()
    }),
    change("/healthcheck/ok", "cause the server to pass health checks", &[], |state, _| {
        state.control.fail_health_checks(false);
        Reply::ok()
    }),
    read("/help", "print out list of admin commands", &[], |_, _| Reply::text(help())),
    read(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        &[],
        // What Envoy says when hot restart is off: here there is none.
        |_, _| Reply::text("disabled"),
    ),
    read(
        "/listeners",
        "print listener info",
        &[("format", "File format to use; One of (text, json)")],
        listeners::answer,
    ),
    change("/logging", "query/change logging levels", logging::PARAMETERS, logging::answer),
    read("/memory", "print current allocation/heap usage", &[], |_, _| memory::answer()),
    change("/quitquitquit", "exit the server", &[], |state, _| {
        state.control.quit();
        Reply::ok()
    }),
    read(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        &[],
        ready::answer,
    ),
    change("/reopen_logs", "reopen access logs", &[], |state, _| {
        state.access_logs.reopen();
        Reply::ok()
    }),
    change("/reset_counters", "reset all counters to zero", &[], |state, _| {
        state.metrics.reset();
        Reply::ok()
    }),
    read("/runtime", "print runtime values", &[], |_, _| {
        // There is no runtime layer: every value is its default.
        Reply::json(&serde_json::json!({"entries": {}, "layers": []}))
    }),
    read("/server_info", "print server version/status information", &[], server_info::answer),
    read("/stats", "print server stats", stats::PARAMETERS, stats::answer),
    read(
        "/stats/prometheus",
        "print server stats in prometheus format",
        stats::PROMETHEUS_PARAMETERS,
        stats::prometheus,
    ),
];

const DRAIN_PARAMETERS: &[(&str, &str)] = &[
    (
        "graceful",
        "When draining listeners, enter a graceful drain period prior to closing listeners. This \
         behaviour and duration is configurable via server options or CLI",
    ),
    (
        "skip_exit",
        "When draining listeners, drain the connections but never stop the listeners. The graceful \
         parameter has no effect when this is set, since the drain period only delays stopping the \
         listeners",
    ),
    (
        "inboundonly",
        "Drains all inbound listeners. traffic_direction field in \
         envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is \
         inbound or outbound.",
    ),
];

const fn read(
    path: &'static str,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    answer: fn(&AdminState, &Parameters) -> Reply,
) -> Endpoint {
    Endpoint { path, changes: false, help, parameters, answer }
}

const fn change(
    path: &'static str,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    answer: fn(&AdminState, &Parameters) -> Reply,
) -> Endpoint {
    Endpoint { path, changes: true, help, parameters, answer }
}

/// The router over [`ENDPOINTS`].
pub(super) fn router(state: AdminState) -> Router {
    let unknown = async || {
        Reply::text(format!("invalid path. {}", help())).with_status(StatusCode::NOT_FOUND)
    };
    let mut router = Router::new().fallback(unknown);
    for endpoint in ENDPOINTS {
        // On a thread of its own: to print the statistics of many clusters takes long, and the control
        // runtime has names to resolve and hosts to eject meanwhile.
        let answer = async move |State(state): State<AdminState>, request: Request| {
            let (request, _body) = request.into_parts();
            tokio::task::spawn_blocking(move || endpoint.serve(&state, &request))
                .await
                .unwrap_or_else(|_| Reply::failed().into_response())
        };
        router = router.route(endpoint.path, any(answer));
    }
    router.with_state(state)
}

impl Endpoint {
    fn serve(&self, state: &AdminState, request: &Parts) -> Response {
        if !same_site::allows(&request.headers) {
            let reason = "requests from other web sites are refused\n";
            return Reply::text(reason).with_status(StatusCode::FORBIDDEN).into_response();
        }
        if self.changes && request.method != Method::POST {
            let reason = format!("Method {} not allowed, POST required.", request.method);
            return Reply::text(reason).with_status(StatusCode::METHOD_NOT_ALLOWED).into_response();
        }
        let parameters = Parameters::parse(request.uri.query().unwrap_or_default());
        (self.answer)(state, &parameters).into_response()
    }
}

/// Envoy's `/help`, of what is here.
fn help() -> String {
    let mut text = "admin commands are:\n".to_owned();
    for Endpoint { path, changes, help, parameters, .. } in ENDPOINTS {
        let post = if *changes { " (POST)" } else { "" };
        text.push_str(&format!("  {path}{post}: {help}\n"));
        for (name, meaning) in *parameters {
            text.push_str(&format!("      {name}: {meaning}\n"));
        }
    }
    text
}
