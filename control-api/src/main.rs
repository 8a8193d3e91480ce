//! The program `outrigger-control`: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_api::server::main_with_args(std::env::args_os())
}
