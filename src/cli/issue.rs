//! `tollgate issue`: signs what a terms file says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{CliError, origin, output, read_input, write_new};
use crate::document::Document;
use crate::domain::Clock;
use crate::domain::time::Timestamp;
use crate::keyring::jwks::PrivateJwk;
use crate::license::{Claims, Draft, sign};

/// Signs a license. The token goes to standard output unless `--out` names a file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate issue --key issuer.jwk --terms terms.yaml --out acme.license\n\n  # terms.yaml\n  assignee: acme\n  valid_for: P1Y\n  terms:\n    datasets: [sales/eu]\n    actions: [read, aggregate]\n    purposes: [ResearchAndDevelopment]"
)]
pub(super) struct Args {
    /// The private key that `tollgate keygen` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What the license says, in YAML or JSON; `-` for standard input
    #[arg(long, value_name = "FILE")]
    terms: PathBuf,
    /// The file for the token; never overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write token and claims as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let draft = Document::parse(&origin(&args.terms), &read_input(&args.terms)?)?.decode()?;
    let (token, claims) = issue(&args.key, draft, Clock::system().now())?;
    if let Some(out) = &args.out {
        write_new(out, &format!("{token}\n"), false)?;
    }
    match (&args.out, args.json) {
        (_, true) => output::json(&json!({ "token": token, "claims": claims })),
        (None, false) => output::line(&token),
        (Some(out), false) => {
            output::line(&format!("license {} for {}: {}", claims.jti, claims.sub, out.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Signs a draft with the key in a file.
pub(super) fn issue(key: &Path, draft: Draft, now: Timestamp) -> Result<(String, Claims), CliError> {
    let name = key.display().to_string();
    let private: PrivateJwk = Document::parse(&name, &read_input(key)?)?.decode()?;
    let signing = private.decode().map_err(|error| CliError::Input(format!("{name}: {error}")))?;
    let new_id = || crate::domain::DecisionId::new(now).to_string();
    let claims =
        draft.claims(&private.issuer, new_id, now).map_err(|error| CliError::Input(error.to_string()))?;
    let token =
        sign::sign(&claims, &private.kid, &signing).map_err(|error| CliError::Input(error.to_string()))?;
    Ok((token, claims))
}
