//! This machine's own address, for naming itself to others.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

/// The first IPv4 address of this machine that is not on the loopback interface, or 127.0.0.1
/// (as Envoy finds the node's address). Read once.
pub fn own_address() -> IpAddr {
    static ADDRESS: OnceLock<IpAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        first_local(&table).unwrap_or(Ipv4Addr::LOCALHOST).into()
    })
}

/// The first `host LOCAL` entry of the kernel's routing table that is no loopback address.
fn first_local(table: &str) -> Option<Ipv4Addr> {
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("/32 host LOCAL") && last.is_some_and(|ip| !ip.is_loopback()) {
            return last;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.1.0.0/24 2 0 2
        |-- 10.1.0.0
           /24 link UNICAST
        |-- 10.1.0.7
           /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL";

    #[test]
    fn the_first_address_off_the_loopback_interface_is_ours() {
        assert_eq!(first_local(TABLE), Some(Ipv4Addr::new(10, 1, 0, 7)));
        assert_eq!(first_local("|-- 127.0.0.1\n/32 host LOCAL"), None);
        assert!(own_address().is_ipv4());
    }
}
