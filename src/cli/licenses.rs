//! `tollgate licenses`: the registered licenses and how they stand, everything about one, or changes as they come.
//!
//! Refuses to show tokens: gates do not tell them.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::admin::moment::Moment;
use super::admin::{AdminConnection, answers};
use super::{CliError, block_on, output};
use crate::document::printable::{printable, printable_json};
use crate::domain::Clock;
use crate::domain::time::Timestamp;
use crate::proto::v1::{GetLicenseRequest, License, LicenseStatus, ListLicensesRequest};

/// List the licenses that a running gate keeps
///
/// With an id: everything about that license, and everything that stands against it. With `--watch`: what
/// stands against licenses, registered or not, and every change of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate licenses --status valid --expiring-before 30d\n\nEverything about one:\n  tollgate licenses license-1\n\nTell another program of every revocation:\n  tollgate licenses --watch --json | while read -r change; do ...; done"
)]
pub(super) struct Args {
    /// The id of one license
    #[arg(
        value_name = "ID",
        conflicts_with_all = ["issuer", "assignee", "status", "expiring_before", "limit", "watch"]
    )]
    id: Option<String>,
    /// Only of this issuer
    #[arg(long)]
    issuer: Option<String>,
    /// Only granted to this organization
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Only of this status
    #[arg(long)]
    status: Option<Status>,
    /// Only those that end before this time: `2027-01-31T00:00:00Z`, or from now, such as `30d` or `P1M`
    #[arg(long, value_name = "TIME")]
    expiring_before: Option<Moment>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Tell of every suspension, reinstatement and revocation as it comes, after all that are in force; ends
    /// with an error when the gate does
    #[arg(long, conflicts_with_all = ["assignee", "status", "expiring_before", "limit"])]
    watch: bool,
    #[command(flatten)]
    admin: AdminConnection,
    /// Write a list of licenses as JSON; with an id, the license; with `--watch`, one object on each line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Status {
    Valid,
    Suspended,
    Revoked,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.id {
        None if args.watch => watch(args)?,
        Some(id) => {
            let license = get(args, id)?;
            if args.json {
                output::json(&answers::license(&license));
            } else {
                explain(&license);
            }
        }
        None => {
            let licenses = list(args)?;
            if args.json {
                output::json(&Value::Array(licenses.iter().map(answers::license).collect()));
            } else {
                output::table(&["id", "issuer", "assignee", "status", "expires"], licenses.iter().map(row));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn get(args: &Args, id: &str) -> Result<License, CliError> {
    let answer = block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(GetLicenseRequest { license_id: id.to_owned() });
        let answer = admin.client.get_license(request).await;
        answer.map_err(|status| admin.failed(&status))
    })?;
    Ok(answer.into_inner().license.unwrap_or_default())
}

fn list(args: &Args) -> Result<Vec<License>, CliError> {
    let ask = filter(args, Clock::system().now())?;
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
    block_on(async {
        let mut admin = args.admin.open().await?;
        admin.licenses(ask, limit).await
    })
}

fn watch(args: &Args) -> Result<(), CliError> {
    block_on(async {
        let mut admin = args.admin.open().await?;
        let mut changes = admin.watch(args.issuer.clone().unwrap_or_default()).await?;
        loop {
            let change = changes.message().await.map_err(|status| admin.failed(&status))?;
            let Some(standing) = change.and_then(|change| change.standing) else {
                return Err(CliError::Failed("the gate ended the watch".to_owned()));
            };
            let line = if args.json {
                printable_json(&answers::standing(&standing).to_string()).into_owned()
            } else {
                printable(&answers::sentence(&standing), &[]).into_owned()
            };
            if !output::is_read(writeln!(io::stdout(), "{line}"))? {
                return Ok(());
            }
        }
    })
}

fn filter(args: &Args, now: Timestamp) -> Result<ListLicensesRequest, CliError> {
    let status = match args.status {
        None => LicenseStatus::Unspecified,
        Some(Status::Valid) => LicenseStatus::Valid,
        Some(Status::Suspended) => LicenseStatus::Suspended,
        Some(Status::Revoked) => LicenseStatus::Revoked,
    };
    Ok(ListLicensesRequest {
        issuer: args.issuer.clone().unwrap_or_default(),
        assignee: args.assignee.clone().unwrap_or_default(),
        status: status.into(),
        expiring_before: Moment::of(args.expiring_before.as_ref(), now)?,
        ..ListLicensesRequest::default()
    })
}

fn row(license: &License) -> Vec<String> {
    vec![
        license.id.clone(),
        license.issuer.clone(),
        license.assignee.clone(),
        answers::word(license.status()).to_owned(),
        answers::time(license.expires).unwrap_or_default(),
    ]
}

fn explain(license: &License) {
    let time = |time| answers::time(time).unwrap_or_default();
    output::field("license", &license.id);
    output::field("granted by", &license.issuer);
    output::field("granted to", &license.assignee);
    output::field("key", &license.key_id);
    output::field("validity", &format!("from {} until {}", time(license.not_before), time(license.expires)));
    output::field("registered", &format!("by {} at {}", license.registered_by, time(license.registered_at)));
    output::field("status", answers::word(license.status()));
    for standing in &license.standings {
        output::field("standing", &answers::sentence(standing));
    }
}
