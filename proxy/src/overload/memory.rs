//! How much memory is in use, of how much.

use std::io;

use crate::config::overload::MonitorKind;

/// The share of its limit that `monitor` sees in use: 1 for all of it, 0 where there is no limit; none if it cannot
/// be read.
pub(super) fn pressure(monitor: &MonitorKind) -> Option<f64> {
    let (used, max) = match monitor {
        MonitorKind::FixedHeap { max } => (resident()?, *max),
        MonitorKind::CgroupMemory { max } => {
            let max = max.or_else(|| cgroup_limit(&[V2.limit, V1.limit]))?;
            if max == UNLIMITED {
                return Some(0.0);
            }
            (V2.used().or_else(|| V1.used())?, max)
        }
    };
    Some(used as f64 / max as f64)
}

/// Resident memory of this process in bytes.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Where a cgroup's memory is told: the limit, what is in use, and the statistics.
struct Files {
    limit: &'static str,
    used: &'static str,
    statistics: &'static str,
    /// Pages of files that nobody uses, which the kernel takes back by itself.
    inactive: &'static str,
}

const V2: Files = Files {
    limit: "/sys/fs/cgroup/memory.max",
    used: "/sys/fs/cgroup/memory.current",
    statistics: "/sys/fs/cgroup/memory.stat",
    inactive: "inactive_file ",
};

const V1: Files = Files {
    limit: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    used: "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    statistics: "/sys/fs/cgroup/memory/memory.stat",
    inactive: "total_inactive_file ",
};

impl Files {
    fn used(&self) -> Option<u64> {
        let used: u64 = std::fs::read_to_string(self.used).ok()?.trim().parse().ok()?;
        let statistics = std::fs::read_to_string(self.statistics).unwrap_or_default();
        let inactive = statistics.lines().find_map(|line| line.strip_prefix(self.inactive));
        let inactive = inactive.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
        Some(used.saturating_sub(inactive))
    }
}

/// What stands for a limit where there is none.
const UNLIMITED: u64 = u64::MAX;

/// The limit in the first of `files` that there is. Without a cgroup there is no limit.
fn cgroup_limit(files: &[&str]) -> Option<u64> {
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => return limit(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(UNLIMITED)
}

/// A limit as cgroups write it; `max`, and the huge number that version 1 has in its place, mean none.
fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(UNLIMITED),
        number => number
            .parse()
            .ok()
            .map(|limit: u64| if limit < i64::MAX as u64 / 2 { limit } else { UNLIMITED }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory() {
        let all = pressure(&MonitorKind::FixedHeap { max: 1 << 40 }).unwrap();
        assert!(0.0 < all && all < 1.0, "{all}");
        assert!(pressure(&MonitorKind::FixedHeap { max: 1000 }).unwrap() > 1.0);
    }

    #[test]
    fn no_limit_is_told_from_one_that_cannot_be_read() {
        assert_eq!(limit("max\n"), Some(UNLIMITED));
        assert_eq!(limit("9223372036854771712\n"), Some(UNLIMITED));
        assert_eq!(cgroup_limit(&["/nowhere/memory.max"]), Some(UNLIMITED));
        assert_eq!(limit("134217728\n"), Some(128 << 20));
        assert_eq!(limit("much"), None);
        assert_eq!(cgroup_limit(&["/proc/self/mem"]), None);
    }
}
