//! The program `outrigger-control`, which says that it is not there yet and fails.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("{}", control_api::NOT_THERE_YET);
    ExitCode::FAILURE
}
