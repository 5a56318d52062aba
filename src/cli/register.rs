//! `tollgate register`: has a gate keep a license, so that checks may name it by its id.
//!
//! Leaves it to the gate to verify it: what is refused in a check is refused here, for the same reason.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::admin::{AdminConnection, answers};
use super::{CliError, block_on, output, read_input};
use crate::proto::v1::{RegisterLicenseRequest, RegisterLicenseResponse};

/// Have a running gate keep a license
///
/// Checks may then name the license by its id. To register the same license again changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate register acme.license --admin unix:admin.sock")]
pub(super) struct Args {
    /// The file with the token; `-` for standard input
    #[arg(value_name = "FILE")]
    license: PathBuf,
    #[command(flatten)]
    admin: AdminConnection,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let token = read_input(&args.license)?.trim().to_owned();
    let answer = block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(RegisterLicenseRequest { token });
        let answer = admin.client.register_license(request).await;
        answer.map_err(|status| admin.failed(&status))
    })?;
    let RegisterLicenseResponse { license, created } = answer.into_inner();
    let license = license.unwrap_or_default();
    if args.json {
        output::json(&json!({ "license": answers::license(&license), "created": created }));
        return Ok(ExitCode::SUCCESS);
    }
    output::field("license", &license.id);
    output::field("status", answers::word(license.status()));
    let at = answers::time(license.registered_at).unwrap_or_default();
    let when = if created { "now" } else { "before" };
    output::field("registered", &format!("{when}, by {} at {at}", license.registered_by));
    Ok(ExitCode::SUCCESS)
}
