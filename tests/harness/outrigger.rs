//! The proxy's own `main`, built together with the suite so that a test never meets a stale binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxy::main_with_args(std::env::args_os())
}
