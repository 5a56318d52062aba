//! `tollgate check`: asks a running gate. Exits 0 for allow, 1 for deny, 2 for could not decide.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::{CliError, block_on, origin, output, read_input};
use crate::document::Document;
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, LicenseRef};
use crate::grpc::convert;
use crate::proto::v1::decision_service_client::DecisionServiceClient;
use crate::proto::v1::{CheckResponse, Decision, Obligation};

/// Ask a running gate
///
/// Exits 0 when it allows, 1 when it denies, 2 when it could not decide.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate check --license acme.license --subject ana --organization acme \\\n    --action read --dataset sales/eu/orders --purpose ScientificResearch"
)]
pub(super) struct Args {
    #[command(flatten)]
    gate: Connection,
    /// The file with the license's token; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "license_id")]
    license: Option<PathBuf>,
    /// The id of a registered license
    #[arg(long)]
    license_id: Option<String>,
    /// The whole request, in YAML or JSON; the options below replace parts of it
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Who uses the data
    #[arg(long)]
    subject: Option<String>,
    /// The organization that the subject acts for
    #[arg(long)]
    organization: Option<String>,
    /// A role of the subject; may be repeated
    #[arg(long)]
    role: Vec<String>,
    /// What is done
    #[arg(long)]
    action: Option<String>,
    /// The dataset's path
    #[arg(long)]
    dataset: Option<String>,
    /// Why: a DPV purpose by its local name
    #[arg(long)]
    purpose: Option<String>,
    /// Where the data will be processed: an ISO 3166-1 alpha-2 code
    #[arg(long)]
    region: Option<String>,
    /// The project on whose behalf
    #[arg(long)]
    project: Option<String>,
    /// The kind of environment
    #[arg(long)]
    environment: Option<String>,
    /// Another dataset that will be combined with it; may be repeated
    #[arg(long)]
    combined_with: Vec<String>,
    /// The data will be combined with data from outside the catalog
    #[arg(long)]
    combined_with_external: bool,
    /// A type of obligation that can be fulfilled; may be repeated
    #[arg(long)]
    supports: Vec<String>,
    /// Name the policies that granted
    #[arg(long)]
    explain: bool,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let request = request(args)?;
    let response = block_on(async {
        let mut client = DecisionServiceClient::new(args.gate.open().await?);
        let answer = client.check(args.gate.request(convert::ask(request))).await;
        answer.map_err(|status| {
            CliError::Failed(format!("could not decide: {:?}: {}", status.code(), status.message()))
        })
    })?
    .into_inner();
    if args.json {
        output::json(&answer_json(&response));
    } else {
        explain(&response);
    }
    Ok(if response.decision() == Decision::Allow { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn request(args: &Args) -> Result<CheckRequest, CliError> {
    let mut request: CheckRequest = match &args.request {
        Some(path) => Document::parse(&origin(path), &read_input(path)?)?.decode()?,
        None => CheckRequest::default(),
    };
    request.license = match (&args.license, &args.license_id) {
        (Some(path), _) => LicenseRef::Token(read_input(path)?.trim().to_owned()),
        (None, Some(id)) => LicenseRef::Id(id.clone()),
        (None, None) => LicenseRef::Missing,
    };
    let replacements = [
        (&mut request.subject.id, &args.subject),
        (&mut request.subject.organization, &args.organization),
        (&mut request.action, &args.action),
        (&mut request.resource.id, &args.dataset),
        (&mut request.purpose, &args.purpose),
        (&mut request.region, &args.region),
        (&mut request.project, &args.project),
        (&mut request.environment, &args.environment),
    ];
    for (part, replacement) in replacements {
        if let Some(replacement) = replacement {
            part.clone_from(replacement);
        }
    }
    request.subject.roles.extend(args.role.iter().cloned());
    request.combined_with.extend(args.combined_with.iter().cloned());
    request.supported_obligations.extend(args.supports.iter().cloned());
    request.combined_with_external |= args.combined_with_external;
    request.explain |= args.explain;
    Ok(request)
}

/// An answer in JSON, for programs.
fn answer_json(response: &CheckResponse) -> Value {
    let reasons = response.reasons.iter().map(|reason| {
        json!({
            "code": reason.code,
            "policy_id": reason.policy_id,
            "reason_user": reason.reason_user,
            "reason_admin": reason.reason_admin,
            "would_pass_if": reason.would_pass_if,
            "cite": reason.cite,
        })
    });
    let obligations = response
        .obligations
        .iter()
        .map(|duty| json!({ "id": duty.id, "type": duty.r#type, "properties": properties(duty) }));
    json!({
        "decision": word(response),
        "decision_id": response.decision_id,
        "reasons": reasons.collect::<Vec<_>>(),
        "obligations": obligations.collect::<Vec<_>>(),
        "valid_until": valid_until(response),
        "granting_policies": response.granting_policies,
        "enforced": !response.not_enforced,
        "policy_revision": response.policy_revision,
    })
}

/// What a duty needs to know.
fn properties(duty: &Obligation) -> Map<String, Value> {
    duty.properties.clone().and_then(|properties| convert::members(Some(properties)).ok()).unwrap_or_default()
}

/// The end of the license's validity.
fn valid_until(response: &CheckResponse) -> Option<String> {
    let end = response.valid_until?;
    Timestamp::new(end.seconds, end.nanos).ok().map(|end| end.to_string())
}

/// The decision in a word.
pub(super) fn word(response: &CheckResponse) -> &'static str {
    if response.decision() == Decision::Allow { "allow" } else { "deny" }
}

fn explain(response: &CheckResponse) {
    output::line(&format!("{}  (decision {})", word(response), response.decision_id));
    if response.not_enforced {
        let would = if response.reasons.is_empty() { "be allowed" } else { "be denied" };
        output::line(&format!("not enforced: the gate is on a dry run; otherwise it would {would}"));
    }
    for reason in &response.reasons {
        output::line(&format!("\n{}  {}", reason.code, reason.reason_user));
        output::line(&format!("  why     {}", reason.reason_admin));
        output::line(&format!("  passes  if {}", reason.would_pass_if));
        if !reason.policy_id.is_empty() {
            output::line(&format!("  policy  {}", reason.policy_id));
        }
        if !reason.cite.is_empty() {
            output::line(&format!("  law     {}", reason.cite));
        }
    }
    for duty in &response.obligations {
        let properties = properties(duty);
        let details = properties.iter().map(|(name, value)| format!("  {name}: {value}"));
        output::line(&format!("obligation  {} ({}){}", duty.r#type, duty.id, details.collect::<String>()));
    }
    if let Some(end) = valid_until(response).filter(|_| response.decision() == Decision::Allow) {
        output::line(&format!("valid until {end}"));
    }
    for policy in &response.granting_policies {
        output::line(&format!("granted by  {policy}"));
    }
}
