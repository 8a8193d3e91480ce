//! What is counted of TCP proxies with one stat prefix.

use super::super::cell::{Cell, Counter, Gauge};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `tcp.PREFIX.*`.
    TcpStats {
        /// Connections accepted.
        downstream_cx_total: Counter = "downstream_cx_total",
        /// Connections whose cluster does not exist.
        downstream_cx_no_route: Counter = "downstream_cx_no_route",
        /// Bytes received from clients.
        downstream_cx_rx_bytes_total: Counter = "downstream_cx_rx_bytes_total",
        /// Bytes from clients that wait for the host to take them.
        downstream_cx_rx_bytes_buffered: Gauge = "downstream_cx_rx_bytes_buffered",
        /// Bytes sent to clients.
        downstream_cx_tx_bytes_total: Counter = "downstream_cx_tx_bytes_total",
        /// Bytes that wait for the client to take them.
        downstream_cx_tx_bytes_buffered: Gauge = "downstream_cx_tx_bytes_buffered",
        /// Times reading from a client paused because the host took no more.
        downstream_flow_control_paused_reading_total: Counter = "downstream_flow_control_paused_reading_total",
        /// Times reading from a client went on.
        downstream_flow_control_resumed_reading_total: Counter = "downstream_flow_control_resumed_reading_total",
        /// Connections closed because they were idle.
        idle_timeout: Counter = "idle_timeout",
        /// Connections closed at max_downstream_connection_duration.
        max_downstream_connection_duration: Counter = "max_downstream_connection_duration",
    }
}
