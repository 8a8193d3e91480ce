//! What the proxy tells about itself: statistics, access logs, trace headers, its own log.

pub mod access_log;
pub mod custom_tag;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod response_flags;
pub mod trace;
