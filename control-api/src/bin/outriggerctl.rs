//! The program `outriggerctl`: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_api::ctl::main_with_args(std::env::args_os())
}
