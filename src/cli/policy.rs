//! `tollgate policy validate` and `tollgate policy test`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{CliError, block_on, output};
use crate::cases;
use crate::policy::{Snapshot, Sources};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Validate(Validate),
    Test(Test),
}

/// Check policies, schema and catalog as a gate would
///
/// Exits 0 when a gate would load them, 1 when not, with every problem and its line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate policy validate policies --catalog catalog.json")]
pub(super) struct Validate {
    /// The folder of the operator's policies; absent: the built-in ones
    directory: Option<PathBuf>,
    /// The catalog of datasets, in Cedar's entity JSON
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

/// Run cases against policies
///
/// Exits 0 when every case goes as expected, 1 when one does not, 2 when they cannot be run. Tells
/// which policies no case shows at work: a `forbid` that objects, a `permit` that grants.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate policy test cases --policies policies\n\n  # cases/purpose.yaml\n  license:\n    claims: {terms: {purposes: [ScientificResearch]}}\n  request:\n    subject: {id: ana, organization: acme}\n    action: read\n    resource: {id: sales/eu}\n    purpose: Marketing\n  expect: {decision: deny, codes: [PURPOSE_NOT_LICENSED]}"
)]
pub(super) struct Test {
    /// The folder of cases (`*.yaml`, at any depth)
    cases: PathBuf,
    /// The folder of the operator's policies; absent: the built-in ones
    #[arg(long, value_name = "FOLDER")]
    policies: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: &Verb) -> Result<ExitCode, CliError> {
    match verb {
        Verb::Validate(args) => validate(args),
        Verb::Test(args) => test(args),
    }
}

fn validate(args: &Validate) -> Result<ExitCode, CliError> {
    let compiled = Sources::read(args.directory.as_deref(), args.catalog.as_deref())
        .and_then(|sources| Snapshot::compile(&sources, 0));
    let (report, words) = match &compiled {
        Ok(snapshot) => {
            let policies = snapshot.ids().count();
            let words = format!("valid: {policies} policies, revision {}", snapshot.revision());
            (json!({ "valid": true, "policies": policies, "revision": **snapshot.revision() }), words)
        }
        Err(problems) => {
            let list: Vec<String> = problems.clone().into_iter().map(|problem| problem.to_string()).collect();
            (json!({ "valid": false, "problems": list }), problems.to_string())
        }
    };
    if args.json {
        output::json(&report);
    } else {
        output::line(&words);
    }
    Ok(if compiled.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn test(args: &Test) -> Result<ExitCode, CliError> {
    let cases = cases::read(&args.cases)?;
    let report =
        block_on(async { cases::run(args.policies.as_deref(), &cases).await.map_err(CliError::failed) })?;
    if args.json {
        let outcomes = report.outcomes.iter().map(|outcome| {
            json!({ "case": outcome.path, "passed": outcome.differences.is_empty(), "differences": outcome.differences })
        });
        output::json(&json!({
            "cases": outcomes.collect::<Vec<_>>(),
            "never_satisfied": report.never_satisfied().collect::<Vec<_>>(),
        }));
    } else {
        explain(&report);
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn explain(report: &cases::Report) {
    for outcome in &report.outcomes {
        let verdict = if outcome.differences.is_empty() { "ok    " } else { "FAILED" };
        output::line(&format!("{verdict}  {}", outcome.path.display()));
        for difference in &outcome.differences {
            output::line(&format!("        {difference}"));
        }
    }
    let failed = report.outcomes.iter().filter(|outcome| !outcome.differences.is_empty()).count();
    output::line(&format!("\n{} passed, {failed} failed", report.outcomes.len() - failed));
    let satisfied = report.policies.len() - report.never_satisfied().count();
    output::line(&format!(
        "coverage: {satisfied} of {} policies were satisfied by a case",
        report.policies.len()
    ));
    for id in report.never_satisfied() {
        output::line(&format!("  never satisfied: {id}"));
    }
}
