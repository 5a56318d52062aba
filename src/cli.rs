//! The command line: one file for each verb. Refuses to decide anything itself: it asks a
//! running gate, or the same modules that a gate is made of.

mod accept;
mod admin;
mod check;
mod connection;
mod health;
mod injector;
mod inspect;
mod issue;
mod keygen;
mod licenses;
mod output;
mod policy;
mod quickstart;
mod register;
mod reinstate;
mod revoke;
mod serve;
mod suspend;
mod target;
mod usage;
mod warnings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::{StartError, StopError};
use crate::document::{Problem, Problems};
use crate::listener::ListenError;

/// Signed data licenses, enforced on every request.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    // The words of each verb stand at its arguments: a comment here would hide them.
    Quickstart(quickstart::Args),
    Serve(serve::Args),
    Keygen(keygen::Args),
    Issue(issue::Args),
    Inspect(inspect::Args),
    Check(Box<check::Args>),
    Health(health::Args),
    Register(Box<register::Args>),
    Licenses(Box<licenses::Args>),
    Revoke(Box<revoke::Args>),
    Suspend(Box<suspend::Args>),
    Reinstate(Box<reinstate::Args>),
    Accept(Box<accept::Args>),
    Usage(Box<usage::Args>),
    Injector(injector::Args),
    /// Work on policies
    #[command(subcommand)]
    Policy(policy::Verb),
}

/// What ends a verb early.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(Problems),
    /// An input is wrong.
    #[error("{0}")]
    Input(String),
    /// Something did not work.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// Something did not work.
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// A file could not be read or written.
    fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::Input(format!("{}: {error}", path.display()))
    }

    /// 64 (`EX_USAGE` of sysexits) for bad configuration, 2 for the rest: 1 is a denial.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(64),
            Self::Input(_) | Self::Failed(_) => ExitCode::from(2),
        }
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Files(problems) => Self::Configuration(problems),
            StartError::Listen(ListenError::Tls(error)) => {
                Self::Configuration(Problem::new("listeners", error.to_string()).into())
            }
            other => Self::failed(other),
        }
    }
}

impl From<StopError> for CliError {
    fn from(error: StopError) -> Self {
        Self::failed(error)
    }
}

impl From<Problems> for CliError {
    fn from(problems: Problems) -> Self {
        Self::Input(problems.to_string())
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Quickstart(args) => quickstart::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Keygen(args) => keygen::run(&args),
        Verb::Issue(args) => issue::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Health(args) => health::run(&args),
        Verb::Register(args) => register::run(&args),
        Verb::Licenses(args) => licenses::run(&args),
        Verb::Revoke(args) => revoke::run(&args),
        Verb::Suspend(args) => suspend::run(&args),
        Verb::Reinstate(args) => reinstate::run(&args),
        Verb::Accept(args) => accept::run(&args),
        Verb::Usage(args) => usage::run(&args),
        Verb::Injector(args) => injector::run(&args),
        Verb::Policy(verb) => policy::run(&verb),
    };
    outcome.unwrap_or_else(|error| {
        output::error(&error.to_string());
        error.exit_code()
    })
}

/// An asynchronous verb, run to its end.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(CliError::failed)?.block_on(future)
}

/// Reads a file, or standard input for `-`.
fn read_input(path: &Path) -> Result<String, CliError> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| CliError::file(path, &error))
}

/// The name of a file for messages.
fn origin(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// Writes a new file; never over an old one.
fn write_new(path: &PathBuf, content: &str, secret: bool) -> Result<(), CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if secret { 0o600 } else { 0o644 };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Input(format!(
            "{}: the file exists; it is never overwritten: choose another name",
            path.display()
        )),
        _ => CliError::file(path, &error),
    })?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| CliError::file(path, &error))
}
