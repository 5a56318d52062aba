//! `tollgate suspend`: ends licenses until they are reinstated.
//!
//! Exits 0 only when the suspension is durable.

use std::process::ExitCode;

use super::admin::AdminConnection;
use super::target::{self, Chosen};
use super::{CliError, block_on};
use crate::proto::v1::SuspendLicenseRequest;

/// End licenses until they are reinstated
///
/// What is revoked cannot be suspended. To suspend again what is suspended changes nothing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate suspend --license license-1 --reason \"an invoice is overdue\"\n\nAll licenses of an organization:\n  tollgate suspend --assignee acme --reason \"an incident is investigated\""
)]
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
    let ask = SuspendLicenseRequest { target: args.chosen.target(), reason: args.chosen.reason() };
    block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(ask);
        let answer = admin.client.suspend_license(request).await;
        let standing = answer.map_err(|status| admin.failed(&status))?.into_inner().standing;
        target::tell(&mut admin, standing, args.json).await
    })?;
    Ok(ExitCode::SUCCESS)
}
