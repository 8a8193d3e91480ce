//! The control plane's own `main`, built together with the suite.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_api::server::main_with_args(std::env::args_os())
}
