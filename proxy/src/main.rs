//! The program `outrigger`: arguments in, exit code out.

use std::process::ExitCode;

/// Frees and allocates per thread: workers never meet in the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    proxy::main_with_args(std::env::args_os())
}
