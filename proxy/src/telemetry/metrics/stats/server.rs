//! Rare events and states of the process, and of what configures it.

use super::super::cell::{Cell, Histogram, SharedCounter, SharedGauge};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// A configuration subscription, or one watched file of resources.
    SubscriptionStats {
        /// Times the resources were read.
        update_attempt: SharedCounter = "update_attempt",
        /// Times they were taken.
        update_success: SharedCounter = "update_success",
        /// Times they could not be read.
        update_failure: SharedCounter = "update_failure",
        /// Times they were read and refused.
        update_rejected: SharedCounter = "update_rejected",
        /// Times they had not come when their time was over.
        init_fetch_timeout: SharedCounter = "init_fetch_timeout",
        /// When they were last taken, in milliseconds since 1970.
        update_time: SharedGauge = "update_time",
        /// A number that stands for the version taken last.
        version: SharedGauge = "version",
    }
}

statistics! {
    /// The stream to the management server of all kinds of resources.
    ControlPlaneStats {
        /// Whether there is a stream (1) or not (0).
        connected_state: SharedGauge = "control_plane.connected_state",
    }
}

statistics! {
    /// The last good configuration on disk (`--config-cache-dir`).
    ConfigCacheStats {
        /// Times it was written.
        write_success: SharedCounter = "config_cache.write_success",
        /// Times it could not be written.
        write_failure: SharedCounter = "config_cache.write_failure",
        /// Times what was found at the start was of no use.
        load_rejected: SharedCounter = "config_cache.load_rejected",
        /// Resources in use that are from a former run, and that no server has sent since.
        resources_in_use: SharedGauge = "config_cache.resources_in_use",
    }
}

statistics! {
    /// The lookups of the names of one cluster.
    ResolutionStats {
        /// Lookups begun.
        update_attempt: SharedCounter = "update_attempt",
        /// Lookups answered, be it with no address.
        update_success: SharedCounter = "update_success",
        /// Lookups that failed.
        update_failure: SharedCounter = "update_failure",
        /// Lookups whose answer changed nothing.
        update_no_rebuild: SharedCounter = "update_no_rebuild",
    }
}

statistics! {
    /// `dns_cache.NAME.*`
    DnsCacheStats {
        /// Lookups begun.
        dns_query_attempt: SharedCounter = "dns_query_attempt",
        /// Lookups answered, be it with no address.
        dns_query_success: SharedCounter = "dns_query_success",
        /// Lookups that failed.
        dns_query_failure: SharedCounter = "dns_query_failure",
        /// Lookups that took longer than dns_query_timeout.
        dns_query_timeout: SharedCounter = "dns_query_timeout",
        /// Names added.
        host_added: SharedCounter = "host_added",
        /// Names forgotten.
        host_removed: SharedCounter = "host_removed",
        /// Answers with other addresses than before.
        host_address_changed: SharedCounter = "host_address_changed",
        /// Names refused because there are too many.
        host_overflow: SharedCounter = "host_overflow",
        /// Names.
        num_hosts: SharedGauge = "num_hosts",
        /// Requests refused because too many wait.
        dns_rq_pending_overflow: SharedCounter = "dns_rq_pending_overflow",
        /// Whether as many requests wait as may.
        rq_pending_open: SharedGauge = "circuit_breakers.rq_pending_open",
        /// How many more requests may wait.
        rq_pending_remaining: SharedGauge = "circuit_breakers.rq_pending_remaining",
    }
}

statistics! {
    /// All lookups of names.
    DnsStats {
        /// Lookups of names.
        resolve_total: SharedCounter = "dns.cares.resolve_total",
        /// Lookups under way.
        pending_resolutions: SharedGauge = "dns.cares.pending_resolutions",
        /// Lookups of names that do not exist, or have no such address.
        not_found: SharedCounter = "dns.cares.not_found",
        /// Lookups that no name server answered in time.
        timeouts: SharedCounter = "dns.cares.timeouts",
        /// Lookups that failed otherwise.
        get_addr_failure: SharedCounter = "dns.cares.get_addr_failure",
    }
}

statistics! {
    /// Rare events and states of the process, written from any thread.
    ServerStats {
        /// Listeners added.
        listener_added: SharedCounter = "listener_manager.listener_added",
        /// Listeners that could not be started.
        listener_create_failure: SharedCounter = "listener_manager.listener_create_failure",
        /// Listeners started.
        listener_create_success: SharedCounter = "listener_manager.listener_create_success",
        /// Listeners changed without closing their socket.
        listener_in_place_updated: SharedCounter = "listener_manager.listener_in_place_updated",
        /// Listeners changed.
        listener_modified: SharedCounter = "listener_manager.listener_modified",
        /// Listeners removed.
        listener_removed: SharedCounter = "listener_manager.listener_removed",
        /// Listeners stopped by draining.
        listener_stopped: SharedCounter = "listener_manager.listener_stopped",
        /// Filter chains that are draining.
        total_filter_chains_draining: SharedGauge = "listener_manager.total_filter_chains_draining",
        /// Listeners serving.
        total_listeners_active: SharedGauge = "listener_manager.total_listeners_active",
        /// Listeners draining.
        total_listeners_draining: SharedGauge = "listener_manager.total_listeners_draining",
        /// Listeners waiting for resources.
        total_listeners_warming: SharedGauge = "listener_manager.total_listeners_warming",
        /// Whether the workers serve (1) or not yet (0).
        workers_started: SharedGauge = "listener_manager.workers_started",
        /// Connections refused because of their PROXY header, or for want of one.
        downstream_cx_proxy_proto_error: SharedCounter = "downstream_cx_proxy_proto_error",
        /// Clusters in use.
        active_clusters: SharedGauge = "cluster_manager.active_clusters",
        /// Clusters waiting for endpoints.
        warming_clusters: SharedGauge = "cluster_manager.warming_clusters",
        /// Clusters added.
        cluster_added: SharedCounter = "cluster_manager.cluster_added",
        /// Clusters changed.
        cluster_modified: SharedCounter = "cluster_manager.cluster_modified",
        /// Clusters removed.
        cluster_removed: SharedCounter = "cluster_manager.cluster_removed",
        /// Headers with an underscore in the name that were dropped.
        http1_dropped_headers: SharedCounter = "http1.dropped_headers_with_underscores",
        /// Requests refused for a header with an underscore in the name.
        http1_rejected_requests: SharedCounter = "http1.requests_rejected_with_underscores_in_headers",
        /// 1 while the server serves, 0 while it drains.
        live: SharedGauge = "server.live",
        /// 0 live, 1 draining, 2 before initialisation, 3 initialising.
        state: SharedGauge = "server.state",
        /// The program's version: 1002003 is 1.2.3.
        version: SharedGauge = "server.version",
        /// Worker threads.
        concurrency: SharedGauge = "server.concurrency",
        /// Seconds since the start.
        uptime: SharedGauge = "server.uptime",
        /// Bytes of heap and stacks in physical memory.
        memory_allocated: SharedGauge = "server.memory_allocated",
        /// The same, with what is swapped out.
        memory_heap_size: SharedGauge = "server.memory_heap_size",
        /// Bytes of resident memory.
        memory_physical_size: SharedGauge = "server.memory_physical_size",
        /// Days until the first certificate expires; 4294967295 without certificates.
        days_until_first_cert_expiring: SharedGauge = "server.days_until_first_cert_expiring",
        /// Connections of clients open now.
        total_connections: SharedGauge = "server.total_connections",
        /// Time from the start to serving, in milliseconds.
        initialization_time: Histogram = "server.initialization_time_ms",
        /// Times the bootstrap file was read again.
        bootstrap_reload_attempt: SharedCounter = "server.bootstrap_reload.attempt",
        /// Times its change was taken.
        bootstrap_reload_success: SharedCounter = "server.bootstrap_reload.success",
        /// Times it was refused and the old configuration kept.
        bootstrap_reload_failure: SharedCounter = "server.bootstrap_reload.failure",
        /// Access-log lines handed to the writer.
        log_write_buffered: SharedCounter = "filesystem.write_buffered",
        /// Access-log blocks written.
        log_write_completed: SharedCounter = "filesystem.write_completed",
        /// Access-log blocks that could not be written.
        log_write_failed: SharedCounter = "filesystem.write_failed",
        /// Access-log lines dropped because the writer was too far behind.
        log_write_dropped: SharedCounter = "filesystem.write_dropped",
        /// Bytes of access log waiting to be written.
        log_write_total_buffered: SharedGauge = "filesystem.write_total_buffered",
        /// Access-log files that could not be opened again.
        log_reopen_failed: SharedCounter = "filesystem.reopen_failed",
    }
}
