//! `tollgate reinstate`: lifts a suspension.
//!
//! Refuses what the gate refuses: nothing lifts a revocation.

use std::process::ExitCode;

use super::admin::AdminConnection;
use super::target::{self, Chosen};
use super::{CliError, block_on};
use crate::proto::v1::ReinstateLicenseRequest;

/// Lift a suspension
///
/// Reinstating a license does not lift the suspension of its key, assignee or issuer; nothing lifts a revocation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate reinstate --license license-1 --reason \"the invoice is paid\"")]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    admin: AdminConnection,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let ask = ReinstateLicenseRequest { target: args.chosen.target(), reason: args.chosen.reason() };
    block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(ask);
        let answer = admin.client.reinstate_license(request).await;
        let standing = answer.map_err(|status| admin.failed(&status))?.into_inner().standing;
        target::tell(&mut admin, standing, args.json).await
    })?;
    Ok(ExitCode::SUCCESS)
}
