//! The proxy's own `main`, built together with the suite so that a test never meets a stale binary.

use std::process::ExitCode;

/// As in the program: what is freed goes back to the system or not depending on the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    proxy::main_with_args(std::env::args_os())
}
