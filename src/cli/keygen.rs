//! `tollgate keygen`: a private key for the issuer, a public key set for the gates.

use std::path::PathBuf;
use std::process::ExitCode;

use ed25519_dalek::SigningKey;
use serde_json::json;

use super::{CliError, output, write_new};
use crate::keyring::jwks::{KeySet, PrivateJwk, PublicJwk};

/// The private key signs licenses and stays with the issuer. The public key set goes into the `keys`
/// folder of every gate that is to trust the issuer.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate keygen --issuer https://data.example --private issuer.jwk --public keys/issuer.json"
)]
pub(super) struct Args {
    /// The issuer's name: the `iss` of the licenses that the key will sign
    #[arg(long)]
    issuer: String,
    /// The file for the private key (mode 0600); never overwritten
    #[arg(long, value_name = "FILE")]
    private: PathBuf,
    /// The file for the public key set; never overwritten
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let kid = generate(&args.issuer, &args.private, &args.public)?;
    if args.json {
        output::json(&json!({ "kid": kid, "private": args.private, "public": args.public }));
    } else {
        output::line(&format!(
            "private key  {}  (keep it secret; it signs licenses)",
            args.private.display()
        ));
        output::line(&format!("public keys  {}  (for the `keys` folder of gates)", args.public.display()));
        output::line(&format!("key id       {kid}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a key and writes both files; tells its id.
pub(super) fn generate(issuer: &str, private: &PathBuf, public: &PathBuf) -> Result<String, CliError> {
    if issuer.is_empty() {
        return Err(CliError::Input(
            "`--issuer` is empty; name who grants, such as `https://data.example`".into(),
        ));
    }
    if public.exists() {
        let shown = public.display();
        return Err(CliError::Input(format!(
            "{shown}: the file exists; it is never overwritten: choose another name"
        )));
    }
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(CliError::failed)?;
    let key = SigningKey::from_bytes(&seed);
    let set = KeySet { issuer: issuer.to_owned(), keys: vec![PublicJwk::of(&key.verifying_key())] };
    let secret = PrivateJwk::of(&key, issuer);
    let text =
        |value: Result<String, serde_json::Error>| value.map(|text| text + "\n").map_err(CliError::failed);
    write_new(private, &text(serde_json::to_string_pretty(&secret))?, true)?;
    let published = write_new(public, &text(serde_json::to_string_pretty(&set))?, false);
    if published.is_err() {
        // Half of a pair is of no use, and would be in the way of the next attempt.
        std::fs::remove_file(private).map_err(CliError::failed)?;
    }
    published.map(|()| secret.kid)
}
