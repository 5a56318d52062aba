//! `tollgate accept`: records that a person accepted the terms that a license asks for.
//!
//! Refuses to work out the hash of the terms: whoever accepts says which terms were read.

use std::process::ExitCode;

use serde_json::json;

use super::admin::AdminConnection;
use super::{CliError, block_on, output};
use crate::proto::v1::AcceptTermsRequest;

/// Record that the terms of a license are accepted
///
/// A license that asks for it (`terms.acceptance`) allows nothing before. To record it again changes
/// nothing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate accept --license license-1 --by ana@acme.example \\\n    --terms-hash LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"
)]
pub(super) struct Args {
    /// The license's id
    #[arg(long, value_name = "ID")]
    license: String,
    /// The `terms_hash` that the license asks for
    // It is base64url, and may begin with a hyphen.
    #[arg(long, value_name = "HASH", allow_hyphen_values = true)]
    terms_hash: String,
    /// The person of the assignee who accepted
    #[arg(long, value_name = "PERSON")]
    by: String,
    /// The issuer of the license; may be left out where the gate trusts one alone, or keeps the license
    #[arg(long)]
    issuer: Option<String>,
    #[command(flatten)]
    admin: AdminConnection,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let ask = AcceptTermsRequest {
        issuer: args.issuer.clone().unwrap_or_default(),
        license_id: args.license.clone(),
        terms_hash: args.terms_hash.clone(),
        accepted_by: args.by.clone(),
    };
    let answer = block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(ask);
        let answer = admin.client.accept_terms(request).await;
        answer.map_err(|status| admin.failed(&status))
    })?;
    let created = answer.into_inner().created;
    if args.json {
        output::json(&json!({
            "license_id": args.license,
            "terms_hash": args.terms_hash,
            "accepted_by": args.by,
            "created": created,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    output::field("license", &args.license);
    output::field("terms", &args.terms_hash);
    // Who did it before may have been somebody else.
    output::field("accepted", &if created { format!("now, by {}", args.by) } else { "before".to_owned() });
    Ok(ExitCode::SUCCESS)
}
