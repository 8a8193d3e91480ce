//! A network of its own for a scenario: a namespace without a way out, in which packets may be redirected.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace this thread is in until it is dropped, and with it every socket it opens and
/// every process it starts. Every address in 10.9.0.0/16 is this machine's own.
#[derive(Debug)]
pub struct Netns {
    name: String,
    before: File,
}

impl Netns {
    /// Makes a namespace and enters it. None, said loudly, where this process may not or `ip` or
    /// `iptables` is missing.
    pub fn enter() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outrigger-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let has_iptables = Command::new("iptables").arg("--version").output().is_ok();
        if !made.is_ok_and(|output| output.status.success()) || !has_iptables {
            assert!(
                std::env::var_os("REQUIRE_NETNS").is_none(),
                "no network namespace can be made"
            );
            // Not eprintln!, which the test runner swallows when a test passes.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: a network namespace needs root, `ip` and `iptables`"
            );
            return None;
        }
        let before = File::open("/proc/thread-self/ns/net").unwrap();
        let namespace = Self { name, before };
        enter(&File::open(format!("/run/netns/{}", namespace.name)).unwrap());
        namespace.run("ip link set lo up");
        namespace.run("ip route add local 10.9.0.0/16 dev lo");
        Some(namespace)
    }

    /// Runs a command in it.
    pub fn run(&self, command: &str) {
        let output = Command::new("sh").args(["-c", command]).output().expect("sh");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        enter(&self.before);
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}
