//! `tollgate keygen`: a private key for the issuer, a public key set for the gates.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ed25519_dalek::SigningKey;
use serde_json::json;

use super::{CliError, output, read_input, write_new};
use crate::keyring::jwks::{KeySet, KeyState, PrivateJwk, PublicJwk};

/// Make a signing key and its public key set
///
/// The private key signs licenses and stays with the issuer. The public key set goes into the `keys`
/// folder of every gate that is to trust the issuer.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate keygen --issuer https://data.example --private issuer.jwk --public keys/issuer.json\n\nThe next key of the same issuer, when the first is to be replaced:\n  tollgate keygen --issuer https://data.example --private next.jwk --add-to keys/issuer.json"
)]
pub(super) struct Args {
    /// The issuer's name: the `iss` of the licenses that the key will sign
    #[arg(long)]
    issuer: String,
    /// The file for the private key (mode 0600); never overwritten
    #[arg(long, value_name = "FILE")]
    private: PathBuf,
    /// The file for the public key set; never overwritten
    #[arg(long, value_name = "FILE", required_unless_present = "add_to")]
    public: Option<PathBuf>,
    /// A key set of the same issuer, to which the public key is added in the state `next`
    #[arg(long, value_name = "FILE", conflicts_with = "public")]
    add_to: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (kid, public) = match (&args.add_to, &args.public) {
        (Some(set), _) => (add(&args.issuer, &args.private, set)?, set),
        (None, Some(public)) => (generate(&args.issuer, &args.private, public)?, public),
        (None, None) => return Err(CliError::Input("one of `--public` and `--add-to` is expected".into())),
    };
    if args.json {
        output::json(&json!({ "kid": kid, "private": args.private, "public": public }));
    } else {
        output::line(&format!(
            "private key  {}  (keep it secret; it signs licenses)",
            args.private.display()
        ));
        output::line(&format!("public keys  {}  (for the `keys` folder of gates)", public.display()));
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
            "{shown}: the file exists; it is never overwritten: choose another name, or `--add-to` it"
        )));
    }
    let (secret, key) = pair(issuer)?;
    let set = KeySet { issuer: issuer.to_owned(), keys: vec![key] };
    publish(private, &secret, || write_new(public, &text(&set)?, false))?;
    Ok(secret.kid)
}

/// Makes a key and adds it to a set of the same issuer, in the state `next`; tells its id.
fn add(issuer: &str, private: &PathBuf, path: &Path) -> Result<String, CliError> {
    let mut set = KeySet::parse(&path.display().to_string(), &read_input(path)?)?;
    if set.issuer != issuer {
        let shown = path.display();
        return Err(CliError::Input(format!("{shown}: its issuer is `{}`, not `{issuer}`", set.issuer)));
    }
    let (secret, key) = pair(issuer)?;
    set.keys.push(PublicJwk { state: KeyState::Next, ..key });
    publish(private, &secret, || replace(path, &text(&set)?))?;
    Ok(secret.kid)
}

fn pair(issuer: &str) -> Result<(PrivateJwk, PublicJwk), CliError> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(CliError::failed)?;
    let key = SigningKey::from_bytes(&seed);
    Ok((PrivateJwk::of(&key, issuer), PublicJwk::of(&key.verifying_key())))
}

/// Writes the private key, then the public one; where that fails, neither.
fn publish(
    private: &PathBuf,
    secret: &PrivateJwk,
    write_public: impl FnOnce() -> Result<(), CliError>,
) -> Result<(), CliError> {
    write_new(private, &text(secret)?, true)?;
    let published = write_public();
    if published.is_err() {
        // Half of a pair is of no use, and would be in the way of the next attempt.
        std::fs::remove_file(private).map_err(CliError::failed)?;
    }
    published
}

/// Replaces a file in one step, so that a gate which follows it never reads half of it; its owner and
/// mode stay, and a link to it stays a link.
fn replace(path: &Path, content: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file(path, &error);
    let path = &path.canonicalize().map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(content.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let before = std::fs::metadata(path).map_err(failed)?;
    fchown(file.as_file(), Some(before.uid()), Some(before.gid())).map_err(failed)?;
    file.as_file().set_permissions(before.permissions()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn text(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(CliError::failed)
}
