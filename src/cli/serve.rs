//! `tollgate serve`: runs a gate until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, block_on};
use crate::app::App;
use crate::config::sources;
use crate::domain::Clock;

/// Run a gate
///
/// Runs until SIGTERM or SIGINT. Configuration comes from the file, then from environment variables
/// (`TOLLGATE__SECTION__KEY`), then from `--set`. Bad configuration exits 64.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate serve --config tollgate.yaml --set listeners.decisions.tcp=127.0.0.1:9191"
)]
pub(super) struct Args {
    /// The configuration file; absent: defaults
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Replaces one value, such as `gate.name=berlin`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<(String, String)>,
    /// Decides, records and measures everything, and allows everything: to see what would be denied before anything is.
    /// It protects nothing
    #[arg(long)]
    dry_run_all: bool,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write `KEY=VALUE`, such as `gate.name=berlin`")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The environment. What is not text in it is made text: a variable of ours is then refused for what
/// it says, and one of others is no reason to fail.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut set = args.set.clone();
    set.extend(args.dry_run_all.then(|| ("gate.dry_run_all".to_owned(), "true".to_owned())));
    let config = sources::load(args.config.as_deref(), environment(), &set);
    let config = config.map_err(CliError::Configuration)?;
    block_on(async {
        let app = App::start(&config, Clock::system()).await?;
        Ok(app.run_until_signal().await?)
    })?;
    Ok(ExitCode::SUCCESS)
}
