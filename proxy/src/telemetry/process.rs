//! What the kernel knows about this process.

/// Memory of this process in bytes; zeros where there is no `/proc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// In physical memory.
    pub resident: u64,
    /// Of these, not backed by files: heap and stacks.
    pub anonymous: u64,
    /// Swapped out.
    pub swapped: u64,
}

/// The memory this process uses now.
pub fn memory() -> Memory {
    std::fs::read_to_string("/proc/self/status").map(|text| parse(&text)).unwrap_or_default()
}

fn parse(status: &str) -> Memory {
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.map_or(0, |kib: u64| kib * 1024)
    };
    Memory { resident: bytes("VmRSS"), anonymous: bytes("RssAnon"), swapped: bytes("VmSwap") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\nVmSwap:\t 4096 kB\n";
        let wanted = Memory { resident: 2 << 20, anonymous: 1 << 20, swapped: 4 << 20 };
        assert_eq!(parse(status), wanted);
        assert_eq!(parse("VmRSS: many kB\n"), Memory::default());
    }
}
