//! The command line of `outriggerctl`: istioctl's verbs for a mesh of Outrigger's.

mod apply;
mod explain;
mod fetch;
mod proxy_config;
mod proxy_status;
mod table;
mod yaml;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::analyze;

/// Ask a mesh how it stands, with istioctl's verbs, columns and -o json|yaml
#[derive(Debug, Parser)]
#[command(name = "outriggerctl", version, max_term_width = 100, arg_required_else_help = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    ProxyStatus(proxy_status::Arguments),
    ProxyConfig(proxy_config::Arguments),
    Analyze(analyze::Arguments),
    Explain(explain::Arguments),
    Apply(apply::Arguments),
}

/// Where the control plane is.
#[derive(Debug, Args)]
struct Control {
    /// The control plane's status address
    #[arg(
        long,
        default_value = "127.0.0.1:15014",
        env = "OUTRIGGER_CONTROL",
        value_name = "ADDRESS"
    )]
    control: String,
}

impl Control {
    fn address(&self) -> &str {
        self.control.trim_start_matches("http://").trim_end_matches('/')
    }
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table
    #[value(alias = "table")]
    Short,
    /// Everything, as JSON
    Json,
    /// Everything, as YAML
    Yaml,
}

impl Output {
    /// Everything, unless a table is wanted.
    fn document(self, value: &Value) -> Option<String> {
        match self {
            Self::Short => None,
            Self::Json => Some(format!("{value:#}\n")),
            Self::Yaml => Some(yaml::to_yaml(value)),
        }
    }
}

/// Runs the program with these arguments, of which the first is its name.
pub fn main_with_args(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(&options.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outriggerctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(command: &Command) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    if let Command::Analyze(arguments) = command {
        return analyze::run(arguments, &mut out);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (text, good) = runtime.block_on(async {
        match command {
            Command::ProxyStatus(arguments) => proxy_status::run(arguments).await,
            Command::ProxyConfig(arguments) => proxy_config::run(arguments).await,
            Command::Explain(arguments) => explain::run(arguments).await,
            Command::Apply(arguments) => apply::run(arguments).await,
            Command::Analyze(_) => Ok((String::new(), true)),
        }
    })?;
    // Whoever reads it may have seen enough.
    let _ = out.write_all(text.as_bytes());
    Ok(good)
}
