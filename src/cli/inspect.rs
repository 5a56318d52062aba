//! `tollgate inspect`: what a license says, in words, and whether it holds.
//!
//! Refuses to call a license good without keys to verify it with.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{CliError, origin, output, read_input, warnings};
use crate::domain::time::Timestamp;
use crate::domain::{Clock, Obligation, Terms};
use crate::keyring::Keyring;
use crate::license::{Claims, Confirmation, VerifiedLicense, jws, verify};

/// Decode, verify and explain a license
///
/// Verifies with the key sets of a folder. Exits 0 when the license is verified and valid now, 1 when it
/// is not, 2 when it cannot be read. Without `--keys` nothing is verified, and it exits 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate inspect acme.license --keys keys")]
pub(super) struct Args {
    /// The file with the token; `-` for standard input
    #[arg(value_name = "FILE")]
    license: PathBuf,
    /// A folder of key sets, as a gate has it
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long)]
    json: bool,
}

/// What was found out about a license.
struct Finding {
    claims: Claims,
    /// Whether the signature holds, or why it is not known to.
    verified: Result<VerifiedLicense, String>,
    /// Whether it is valid now, in words.
    validity: Result<String, String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let text = read_input(&args.license)?;
    let name = origin(&args.license);
    let parts = jws::parse(text.trim()).map_err(|error| CliError::Input(format!("{name}: {error}")))?;
    let claims =
        Claims::parse(&parts.payload).map_err(|error| CliError::Input(format!("{name}: {error}")))?;
    let verified = match &args.keys {
        None => Err("not verified: name the folder of key sets with `--keys`".to_owned()),
        Some(folder) => {
            verify::verify(text.trim(), &Keyring::open(folder)?.current()).map_err(|e| e.to_string())
        }
    };
    let validity = validity(&claims, Clock::system().now());
    let finding = Finding { claims, verified, validity };
    if args.json {
        output::json(&finding.json());
    } else {
        finding.explain();
    }
    let good = finding.verified.is_ok() && finding.validity.is_ok();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn validity(claims: &Claims, now: Timestamp) -> Result<String, String> {
    if now >= claims.exp {
        Err(format!("expired at {}", claims.exp))
    } else if now < claims.nbf {
        Err(format!("not valid before {}", claims.nbf))
    } else {
        Ok(format!("valid until {}", claims.exp))
    }
}

impl Finding {
    fn json(&self) -> serde_json::Value {
        let reason = self.verified.as_ref().err();
        json!({
            "verified": self.verified.is_ok(),
            "valid_now": self.validity.is_ok(),
            "reason": reason.or(self.validity.as_ref().err()),
            "warnings": warnings::of(&self.claims.terms),
            "claims": self.claims,
        })
    }

    fn explain(&self) {
        let claims = &self.claims;
        let signature = match &self.verified {
            Ok(license) => format!("verified with key `{}` of `{}`", license.key.kid, license.key.issuer),
            Err(reason) => reason.clone(),
        };
        let validity = self.validity.as_ref().unwrap_or_else(|reason| reason);
        let mut rows = vec![
            ("license", claims.jti.clone()),
            ("granted by", claims.iss.clone()),
            ("granted to", claims.sub.clone()),
            ("signature", signature),
            ("validity", format!("{validity} (from {})", claims.nbf)),
            ("for gates", claims.aud.as_ref().map_or("any".to_owned(), |aud| aud.names().join(", "))),
            ("holder", holder(claims.cnf.as_ref())),
        ];
        rows.extend(explain_terms(&claims.terms));
        for (what, words) in rows {
            output::field(what, &words);
        }
        for warning in warnings::of(&claims.terms) {
            output::field("warning", &warning);
        }
    }
}

fn holder(confirmation: Option<&Confirmation>) -> String {
    match confirmation {
        None => "anyone who presents it".to_owned(),
        Some(Confirmation::SpiffeId(id)) => format!("only the workload `{id}`"),
        Some(Confirmation::CertificateThumbprint(hash)) => {
            format!("only with the certificate of SHA-256 `{hash}`")
        }
        Some(Confirmation::JwkThumbprint(hash)) => format!("only with the key of thumbprint `{hash}`"),
    }
}

fn explain_terms(terms: &Terms) -> Vec<(&'static str, String)> {
    let only = |names: &Option<std::collections::BTreeSet<String>>| {
        names.as_ref().map(|names| format!("only {}", join(names.iter())))
    };
    let optional = [
        ("tier", terms.tier.clone()),
        ("users", only(&terms.users)),
        ("roles", only(&terms.roles)),
        ("projects", only(&terms.projects)),
        ("regions", only(&terms.regions)),
        ("environments", only(&terms.environments)),
        ("prohibited", some(join(terms.prohibitions.iter().map(|name| name.as_str())))),
        ("anonymization", terms.anonymization.as_ref().map(words_of)),
        ("quotas", some(terms.quotas.iter().map(words_of).collect::<Vec<_>>().join("; "))),
        ("retention", terms.retention.as_ref().map(words_of)),
        ("legal basis", terms.legal_basis.clone()),
        ("regulations", some(join(terms.regulations.iter().map(|name| name.as_str())))),
        ("acceptance", terms.acceptance.as_ref().map(|terms| format!("of the terms `{}`", terms.terms_hash))),
        ("duties", some(join(terms.duties.iter().map(duty)))),
    ];
    let required = [
        ("datasets", join(terms.datasets.iter())),
        ("actions", join(terms.actions.iter())),
        ("purposes", join(terms.purposes.iter())),
    ];
    let optional = optional.into_iter().filter_map(|(what, words)| Some((what, words?)));
    required.into_iter().chain(optional).collect()
}

fn duty(duty: &Obligation) -> String {
    format!("{} ({})", duty.kind, duty.id)
}

fn some(words: String) -> Option<String> {
    (!words.is_empty()).then_some(words)
}

/// The members of a small structure, as `name value`.
fn words_of(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    let members = value.as_object().into_iter().flatten();
    let member = |(name, value): (&String, &serde_json::Value)| match value {
        serde_json::Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    };
    join(members.map(member))
}

fn join(values: impl Iterator<Item = impl std::fmt::Display>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}
