//! `tollgate issue`: signs what a terms file says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{CliError, origin, output, read_input, warnings, write_new};
use crate::document::{Document, Problems};
use crate::domain::Clock;
use crate::domain::time::Timestamp;
use crate::keyring::jwks::PrivateJwk;
use crate::license::{Claims, Draft, sign};

/// Sign a license
///
/// The token goes to standard output unless `--out` names a file.
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
    let draft = Document::parse(&origin(&args.terms), &read_input(&args.terms)?)?;
    let (token, claims) = issue(&args.key, &draft, Clock::system().now())?;
    for warning in warnings::of(&claims.terms) {
        output::warning(&warning);
    }
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
pub(super) fn issue(key: &Path, draft: &Document, now: Timestamp) -> Result<(String, Claims), CliError> {
    let name = key.display().to_string();
    let private: PrivateJwk = Document::parse(&name, &read_input(key)?)?.decode()?;
    let signing = private.decode().map_err(|error| CliError::Input(format!("{name}: {error}")))?;
    let new_id = || crate::domain::DecisionId::new(now).to_string();
    let wrong = |place: &str, words: String| CliError::from(Problems::from(draft.problem(place, words)));
    let claims = draft.decode::<Draft>()?.claims(&private.issuer, new_id, now);
    let claims = claims.map_err(|error| wrong("", error.to_string()))?;
    claims.check().map_err(|error| {
        let (place, words) = in_terms_of_a_draft(&error.to_string());
        wrong(&place, words)
    })?;
    let token = sign::sign(&claims, &private.kid, &signing).map_err(|error| wrong("", error.to_string()))?;
    Ok((token, claims))
}

/// What is wrong with claims, at the place of the draft that they were made of.
fn in_terms_of_a_draft(error: &str) -> (String, String) {
    let (claim, words) = error.split_once(": ").unwrap_or(("", error));
    match claim {
        "exp" => {
            (String::new(), "the validity ends before it begins; look at `expires` and `not_before`".into())
        }
        "iss" => (String::new(), format!("the issuer of the key: {words}")),
        "sub" => ("/assignee".into(), words.into()),
        "jti" => ("/id".into(), words.into()),
        claim if claim.starts_with("cnf") => ("/holder".into(), words.into()),
        claim => (format!("/{}", claim.replace('.', "/")), words.into()),
    }
}
