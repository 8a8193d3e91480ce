//! The command line: what `outrigger-control` can do so far.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::analyze;

/// What the program says instead of serving.
pub const NOT_THERE_YET: &str = "outrigger-control: serving proxies is not there yet; \
     configure the proxy with files (`outrigger -c bootstrap.yaml`, LDS, CDS, RDS, EDS and SDS from \
     `path_config_source`). There is `outrigger-control analyze DIR`";

/// Outrigger's control plane. So far it reads the YAML of a mesh and says what is wrong with it.
#[derive(Debug, Parser)]
#[command(name = "outrigger-control", version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Analyze(analyze::Arguments),
}

/// Runs the program with these arguments, of which the first is its name.
pub fn main_with_args(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // Help and version go to standard output and are no failure; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let Some(Command::Analyze(arguments)) = options.command else {
        eprintln!("{NOT_THERE_YET}");
        return ExitCode::FAILURE;
    };
    let mut out = std::io::stdout().lock();
    let answer = analyze::run(&arguments, &mut out).and_then(|good| {
        out.flush()?;
        Ok(good)
    });
    match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads the findings has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outrigger-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
