//! How much memory is in use, of how much.

use crate::config::overload::MonitorKind;

/// The share of its limit that `monitor` sees in use, 1 for all of it; none if it cannot be read, or if there is
/// no limit.
pub(super) fn pressure(monitor: &MonitorKind) -> Option<f64> {
    let (used, max) = match monitor {
        MonitorKind::FixedHeap { max } => (resident()?, *max),
        MonitorKind::CgroupMemory { max } => {
            let limit = || V2.limit().or_else(|| V1.limit());
            (V2.used().or_else(|| V1.used())?, max.or_else(limit)?)
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
    fn limit(&self) -> Option<u64> {
        limit(&std::fs::read_to_string(self.limit).ok()?)
    }

    fn used(&self) -> Option<u64> {
        let used: u64 = std::fs::read_to_string(self.used).ok()?.trim().parse().ok()?;
        let statistics = std::fs::read_to_string(self.statistics).unwrap_or_default();
        let inactive = statistics.lines().find_map(|line| line.strip_prefix(self.inactive));
        let inactive = inactive.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
        Some(used.saturating_sub(inactive))
    }
}

/// A limit as cgroups write it; `max`, and the huge number that version 1 has in its place, mean none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < i64::MAX as u64 / 2)
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
    fn no_limit_is_none() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("134217728\n"), Some(128 << 20));
    }
}
