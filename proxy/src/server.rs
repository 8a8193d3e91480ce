//! Starts everything in order and owns the shutdown: options, configuration, workers, admin, signals, drain.

mod agent;
mod control;
mod heap;
mod jwks;
mod logs;
pub mod options;
mod process;
mod runtime;
mod sending;
mod shutdown;
mod spans;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use self::agent::Agent;
use self::options::{Mode, Options, Question};
use crate::discovery::{Assembler, Located, Sources, Unpublished};
use crate::listener::access_logs;
use crate::listener::manager::CannotListen;
use crate::offline::{explain, fields, route_check};
use crate::telemetry::logging::{LogStyle, Logging, StartError};
use crate::telemetry::metrics::Metrics;

/// Runs the program with these arguments, its name first: the whole of `outrigger`'s `main`.
pub fn main_with_args(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            // Help and version go to standard output and are no failure; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let ran = match &options.question {
        Some(question) => answer(question),
        None => run(&options).map(|()| true),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outrigger: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers a question about a configuration; whether the answer is a good one.
fn answer(question: &Question) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match question {
        Question::RouteCheck(arguments) => route_check::run(arguments, &mut out),
        Question::Explain(arguments) => explain::run(arguments, &mut out),
        Question::Fields(arguments) => fields::run(arguments, &mut out),
    }
}

fn run(options: &Options) -> Result<()> {
    let logging = start_logging(options)?;
    for flag in options.ineffective() {
        tracing::warn!(flag, "this Envoy flag has no effect here");
    }
    if options.config_path.is_none() && options.config_yaml.is_none() {
        return Err(anyhow!("no configuration: give --config-path (-c), --config-yaml, or both"));
    }
    let metrics = Arc::new(Metrics::default());
    let sources = Sources {
        config_path: options.config_path.clone(),
        config_yaml: options.config_yaml.clone(),
    };
    let agent = Agent::new(&options.agent, &metrics).context("the agent cannot work")?;
    let (agent, obtained) = agent.unzip();
    let assembler = Assembler::load_with(sources, Arc::clone(&metrics), obtained);
    let assembler = assembler.map_err(|errors| refused(&errors))?;
    if options.mode != Mode::Serve {
        return validate(options, &assembler);
    }
    // Health checks speak HTTP, whose connections stay on one thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    let runtime = runtime.context("cannot start the control runtime")?;
    runtime.block_on(async {
        if let Some(agent) = agent {
            tokio::task::spawn_local(agent.run());
        }
        process::serve(options, logging, metrics, assembler).await
    })
}

fn start_logging(options: &Options) -> Result<Logging> {
    let bad = |error: String| anyhow!(error);
    let level = options.log_level.parse().map_err(bad).context("--log-level")?;
    let style: LogStyle = options.log_format.parse().map_err(bad).context("--log-format")?;
    let logging = match Logging::start(level, style, options.log_path.as_deref()) {
        Ok(logging) => logging,
        // Another part of the program, such as a test, logs already: its choice stands.
        Err(StartError::Taken(_)) => Logging::detached(level),
        Err(error) => return Err(error).context("--log-path"),
    };
    if !options.component_log_level.is_empty() {
        let list = &options.component_log_level;
        logging.set_from_list(list).map_err(bad).context("--component-log-level")?;
    }
    Ok(logging)
}

/// Says whether the configuration is good, files of discovered resources and of access logs included.
fn validate(options: &Options, assembler: &Assembler) -> Result<()> {
    let problems = assembler.problems();
    if !problems.is_empty() {
        return Err(refused(&problems));
    }
    access_logs::check(assembler.snapshot()).map_err(|CannotListen { listener, error }| {
        refused(&[assembler.locate_in_listener(Unpublished { listener, error })])
    })?;
    process::check_admin_logs(assembler)?;
    let name = options.config_path.as_ref().map(|path| path.display().to_string());
    println!("configuration '{}' OK", name.unwrap_or_default());
    Ok(())
}

/// All errors of a configuration, one per line.
fn refused(errors: &[Located]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow!("the configuration was refused:\n{}", lines.join("\n"))
}
