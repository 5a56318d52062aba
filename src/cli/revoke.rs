//! `tollgate revoke`: ends licenses for good.
//!
//! Exits 0 only when the revocation is durable.

use std::process::ExitCode;

use super::admin::AdminConnection;
use super::target::{self, Chosen};
use super::{CliError, block_on};
use crate::proto::v1::RevokeLicenseRequest;

/// End licenses for good
///
/// Nothing lifts a revocation. To revoke again what is revoked changes nothing: the first reason stays.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate revoke --license license-1 --reason \"the contract has ended\"\n\nAll licenses that were signed with a key:\n  tollgate revoke --key-id zKvTvRsj --reason \"the key has leaked\""
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
    let ask = RevokeLicenseRequest { target: args.chosen.target(), reason: args.chosen.reason() };
    block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(ask);
        let answer = admin.client.revoke_license(request).await;
        let standing = answer.map_err(|status| admin.failed(&status))?.into_inner().standing;
        target::tell(&mut admin, standing, args.json).await
    })?;
    Ok(ExitCode::SUCCESS)
}
