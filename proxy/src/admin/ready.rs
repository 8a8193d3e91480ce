//! `/ready`: whether traffic may be sent here.

use http::StatusCode;

use super::parameters::Parameters;
use super::reply::Reply;
use super::{AdminState, State};

impl State {
    /// Envoy's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

pub(super) fn answer(state: &AdminState, _: &Parameters) -> Reply {
    let state = state.control.state();
    let status =
        if state == State::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Reply::text(format!("{}\n", state.name())).with_status(status)
}
