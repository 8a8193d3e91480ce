//! The command line of `outrigger-control`.

pub mod run;
mod trust;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::analyze;

/// Outrigger's control plane: reads the YAML of a mesh, says what is wrong with it, and serves it to proxies
#[derive(Debug, Parser)]
#[command(name = "outrigger-control", version, max_term_width = 100, arg_required_else_help = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Arguments>),
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
    let answer = match options.command {
        Command::Run(arguments) => run::run(&arguments).map(|()| true),
        Command::Analyze(arguments) => {
            let mut out = std::io::stdout().lock();
            analyze::run(&arguments, &mut out).and_then(|good| {
                out.flush()?;
                Ok(good)
            })
        }
    };
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
