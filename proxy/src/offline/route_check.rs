//! `outrigger route-check`: holds a route table against test files of Envoy's `router_check_tool`.
//!
//! A test gives a request's head with all that is random or dynamic about it, and says what the route must
//! be: cluster, virtual host, rewrites, redirect, headers. Nothing is sent anywhere.

mod answer;
mod compare;
mod coverage;
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use xds::router_check::Validation;
use xds::yaml::{Document, Error as Located};

use self::compare::{Mismatch, compare};
use self::coverage::Coverage;
use self::table::Tables;
use crate::config::Invalid;

/// What the command line says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  outrigger route-check -c routes.yaml -t tests.yaml --details\n\n\
    routes.yaml holds an envoy.config.route.v3.RouteConfiguration; tests.yaml is for example:\n  \
    tests:\n  - test_name: carts go to the new cluster\n    \
    input: {authority: shop.example, path: /cart, method: GET}\n    \
    validate: {cluster_name: cart-v2}\n\n\
    Exit codes: 0 all tests pass; 1 one fails, coverage is too low, or a file is refused; 2 wrong arguments."
)]
pub struct Arguments {
    /// Route table: an `envoy.config.route.v3.RouteConfiguration` as YAML or JSON
    #[arg(short = 'c', long, value_name = "FILE")]
    config_path: PathBuf,

    /// Tests in the format of Envoy's `router_check_tool`, as YAML or JSON
    #[arg(short = 't', long, value_name = "FILE")]
    test_path: PathBuf,

    /// Name every test, not only those that fail
    #[arg(short = 'd', long)]
    details: bool,

    /// Name only tests that fail, even with `--details`
    #[arg(long)]
    only_show_failures: bool,

    /// Fail if less than this percentage of the routes is tested
    #[arg(short = 'f', long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percentage)]
    fail_under: f64,

    /// Count a route as tested only as far as every one of its properties is
    #[arg(long, visible_alias = "covall")]
    comprehensive_coverage: bool,

    /// Name the routes that no test takes
    #[arg(long)]
    detailed_coverage: bool,

    /// How results are written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Accepted for Envoy's sake: deprecated fields are no error here
    #[arg(long, hide = true)]
    disable_deprecation_check: bool,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

/// How one test ended.
struct Outcome {
    test: String,
    mismatches: Vec<Mismatch>,
}

/// Runs the tests and writes how they ended to `out`; whether all is as it should be.
///
/// # Errors
/// If a file cannot be read, is refused, or `out` cannot be written.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<bool> {
    let tests = document(&arguments.test_path)?;
    let validation: Validation = tests.read().map_err(|errors| refused(&errors))?;
    if validation.tests.is_empty() {
        return Err(anyhow!(tests.error_at("tests", "needs at least one test")));
    }
    let mut tables = Tables::read(document(&arguments.config_path)?)?;
    let mut coverage = Coverage::default();
    let mut outcomes = Vec::new();
    for (index, item) in validation.tests.iter().enumerate() {
        let place = |errors: Vec<Invalid>| {
            let errors = errors.into_iter().map(|error| error.under(&format!("tests[{index}]")));
            let located = errors.map(|error| tests.error_at(error.path, error.reason));
            refused(&located.collect::<Vec<_>>())
        };
        let input = item.input.clone().unwrap_or_default();
        let table = tables.with_runtime_key(&input.runtime)?;
        let answer = answer::answer(table, &input).map_err(|error| place(vec![error]))?;
        let expected = item.validate.clone().unwrap_or_default();
        let (matched, mismatches) = compare(&expected, &answer, &tables).map_err(place)?;
        coverage.mark(&answer, matched);
        outcomes.push(Outcome { test: item.test_name.clone(), mismatches });
    }
    let covered = coverage.percent(tables.config(), arguments.comprehensive_coverage);
    let missing = coverage.missing(tables.config());
    report(arguments, &outcomes, covered, &missing, out).context("cannot write the results")?;
    let passed = outcomes.iter().all(|outcome| outcome.mismatches.is_empty());
    Ok(passed && covered >= arguments.fail_under)
}

fn percentage(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("must be 0 to 100".to_owned()),
    }
}

fn document(path: &Path) -> Result<Document> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Document::new(path.display().to_string(), text))
}

fn refused(errors: &[Located]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow!("{}", lines.join("\n"))
}

fn report(
    arguments: &Arguments,
    outcomes: &[Outcome],
    covered: f64,
    missing: &[String],
    out: &mut impl Write,
) -> std::io::Result<()> {
    if arguments.output == Output::Json {
        return writeln!(out, "{:#}", as_json(outcomes, covered, missing));
    }
    let names_all = arguments.details && !arguments.only_show_failures;
    for Outcome { test, mismatches } in outcomes {
        if names_all || !mismatches.is_empty() {
            writeln!(out, "{test}")?;
        }
        for mismatch in mismatches {
            writeln!(out, "{mismatch}")?;
        }
    }
    if arguments.detailed_coverage {
        for route in missing {
            writeln!(out, "Missing test for {route}")?;
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.mismatches.is_empty()).count();
    writeln!(out, "{} tests, {failed} failed", outcomes.len())?;
    writeln!(out, "Current route coverage: {covered:.4}%")?;
    if covered < arguments.fail_under {
        writeln!(out, "Failed to meet coverage requirement: {}%", arguments.fail_under)?;
    }
    Ok(())
}

fn as_json(outcomes: &[Outcome], covered: f64, missing: &[String]) -> serde_json::Value {
    let results = outcomes.iter().map(|Outcome { test, mismatches }| {
        let failures = mismatches.iter().map(|Mismatch { expected, actual, kind }| {
            json!({"test_type": kind, "expected": expected, "actual": actual})
        });
        json!({
            "test_name": test,
            "test_passed": mismatches.is_empty(),
            "failures": failures.collect::<Vec<_>>(),
        })
    });
    json!({
        "test_results": results.collect::<Vec<_>>(),
        "coverage": covered,
        "routes_without_test": missing,
    })
}
