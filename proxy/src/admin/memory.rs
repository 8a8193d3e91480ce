//! `/memory`: what the kernel says this process uses.

use serde_json::json;

use super::reply::Reply;
use crate::telemetry::process;

pub(super) fn answer() -> Reply {
    let memory = process::memory();
    // The allocator keeps no books that could be asked for the rest.
    Reply::json(&json!({
        "allocated": memory.anonymous.to_string(),
        "heap_size": (memory.anonymous + memory.swapped).to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    }))
}
