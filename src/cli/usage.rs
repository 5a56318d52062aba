//! `tollgate usage`: how much was used, as a table for people, or as CSV or JSON for programs.
//!
//! Refuses to hold what it can pass on: rows of CSV and JSON are written as they come.

use std::io::{self, IsTerminal, Stdout, Write};
use std::process::ExitCode;

use serde_json::json;

use super::admin::moment::Moment;
use super::admin::{AdminConnection, answers};
use super::{CliError, block_on, output};
use crate::document::printable::{printable, printable_json};
use crate::domain::Clock;
use crate::domain::time::Timestamp;
use crate::proto::v1::{GetUsageRequest, GetUsageResponse, UsageWindow};

/// The columns, and the members of a row in JSON. Ids of licenses are unique under their issuer only.
const COLUMNS: [&str; 8] =
    ["issuer", "license", "assignee", "user", "project", "metric", "window_start", "amount"];

/// Tell how much was used
///
/// Use shows up within a second of the decision that it comes from. Without options: all of it, added up.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate usage --assignee acme --window month --csv > usage.csv\n\nThe last week, day by day:\n  tollgate usage --license license-1 --from \"7d ago\" --window day"
)]
pub(super) struct Args {
    /// Only under the license of this id
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// Only under licenses of this issuer
    #[arg(long)]
    issuer: Option<String>,
    /// Only by this organization
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Only by this user
    #[arg(long)]
    user: Option<String>,
    /// Only for this project
    #[arg(long)]
    project: Option<String>,
    /// Only of this metric
    #[arg(long)]
    metric: Option<String>,
    /// Only in hours that begin at this time or later: `2027-01-31T00:00:00Z`, or from now, as `7d ago`
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Only in hours that begin before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Adds up over each of these, in UTC
    #[arg(long, default_value = "total")]
    window: Window,
    #[command(flatten)]
    admin: AdminConnection,
    /// Write CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Write one JSON object on each line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Window {
    Total,
    Hour,
    Day,
    Month,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let ask = filter(args, Clock::system().now())?;
    block_on(async {
        let mut admin = args.admin.open().await?;
        let request = admin.request(ask);
        let answer = admin.client.get_usage(request).await;
        let mut answers = answer.map_err(|status| admin.failed(&status))?.into_inner();
        let mut rows = Rows::of(args);
        let mut goes_on = output::is_read(rows.begin())?;
        while goes_on && let Some(row) = admin.next(&mut answers).await? {
            goes_on = output::is_read(rows.add(&row))?;
        }
        output::is_read(rows.end())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn filter(args: &Args, now: Timestamp) -> Result<GetUsageRequest, CliError> {
    let window = match args.window {
        Window::Total => UsageWindow::Total,
        Window::Hour => UsageWindow::Hour,
        Window::Day => UsageWindow::Day,
        Window::Month => UsageWindow::Month,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Ok(GetUsageRequest {
        issuer: text(&args.issuer),
        license_id: text(&args.license),
        assignee: text(&args.assignee),
        user: text(&args.user),
        project: text(&args.project),
        metric: text(&args.metric),
        window: window.into(),
        from: Moment::of(args.from.as_ref(), now)?,
        until: Moment::of(args.until.as_ref(), now)?,
    })
}

/// Where rows go.
enum Rows {
    Table(Vec<Vec<String>>),
    Csv(Box<csv::Writer<Stdout>>),
    Json(Stdout),
}

impl Rows {
    fn of(args: &Args) -> Self {
        match (args.csv, args.json) {
            (true, _) => Self::Csv(Box::new(csv::Writer::from_writer(io::stdout()))),
            (false, true) => Self::Json(io::stdout()),
            (false, false) => Self::Table(Vec::new()),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self {
            Self::Csv(writer) => writer.write_record(COLUMNS).map_err(cause),
            Self::Table(_) | Self::Json(_) => Ok(()),
        }
    }

    fn add(&mut self, row: &GetUsageResponse) -> io::Result<()> {
        match self {
            Self::Table(rows) => {
                rows.push(cells(row).into());
                Ok(())
            }
            Self::Csv(writer) => {
                let cells = cells(row);
                if !io::stdout().is_terminal() {
                    return writer.write_record(&cells).map_err(cause);
                }
                writer.write_record(cells.iter().map(|cell| printable(cell, &[]).into_owned())).map_err(cause)
            }
            Self::Json(out) => writeln!(out, "{}", object(row)),
        }
    }

    fn end(self) -> io::Result<()> {
        match self {
            Self::Table(rows) => {
                output::table(&COLUMNS, rows);
                Ok(())
            }
            Self::Csv(mut writer) => writer.flush(),
            Self::Json(mut out) => out.flush(),
        }
    }
}

/// What the operating system said.
fn cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn cells(row: &GetUsageResponse) -> [String; 8] {
    [
        row.issuer.clone(),
        row.license_id.clone(),
        row.assignee.clone(),
        row.user.clone(),
        row.project.clone(),
        row.metric.clone(),
        answers::time(row.window_start).unwrap_or_default(),
        row.amount.to_string(),
    ]
}

/// A row as JSON on one line, in which what would steer a terminal is spelled out as JSON does.
fn object(row: &GetUsageResponse) -> String {
    let [issuer, license, assignee, user, project, metric, start, amount] = COLUMNS;
    let text = json!({
        issuer: row.issuer,
        license: row.license_id,
        assignee: row.assignee,
        user: row.user,
        project: row.project,
        metric: row.metric,
        start: answers::time(row.window_start),
        amount: row.amount,
    })
    .to_string();
    printable_json(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_json_steers_no_terminal_and_keeps_what_it_says() {
        let user = "\u{9b}2Jana\n\u{202e}".to_owned();
        let row = GetUsageResponse { user: user.clone(), amount: 2.5, ..GetUsageResponse::default() };
        let text = object(&row);
        assert!(!text.contains(['\u{9b}', '\u{202e}', '\n']), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["user"], &value["amount"]), (&user.into(), &2.5_f64.into()));
    }
}
