//! Verifies a token: shape, signature, issuer, terms, in this order.
//!
//! Refuses to look at a claim before the signature holds, but for `iss`, which only chooses
//! among keys of the same name. Time, audience and holder are the decision's concern.

use ed25519_dalek::Signature;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::claims::{Claims, ClaimsError};
use super::jws;
use crate::domain::{Code, Reason};
use crate::keyring::{Keys, TrustedKey};

/// A license whose signature holds, made by a key of the issuer that it names, and whose every
/// term is understood.
#[derive(Clone, Debug)]
pub struct VerifiedLicense {
    /// What it says.
    pub claims: Claims,
    /// The key that vouches for it.
    pub key: TrustedKey,
    /// The SHA-256 of the token.
    pub digest: [u8; 32],
}

/// Why a token is refused. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// Words for the administrator.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The same as a reason of a denial.
    pub fn reason(&self) -> Reason {
        Reason::new(self.code, self.detail.clone())
    }
}

/// The hash by which a token is remembered.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The one claim that is looked at before the signature is verified.
#[derive(Deserialize)]
struct IssuerOnly {
    iss: Option<String>,
}

/// Verifies a token against the keys in force.
///
/// # Errors
/// The first thing that is wrong: without it, nothing that comes after means anything.
pub fn verify(token: &str, keys: &Keys) -> Result<VerifiedLicense, Refusal> {
    let parts = jws::parse(token)?;
    let kid = &parts.header.kid;
    let claimed = serde_json::from_slice::<IssuerOnly>(&parts.payload).ok().and_then(|claims| claims.iss);
    let candidates = keys.named(kid);
    let of_issuer = candidates.iter().find(|key| Some(&*key.issuer) == claimed.as_deref());
    let Some(key) = of_issuer.or(candidates.first()) else {
        return Err(Refusal::new(Code::KeyUnknown, "no trusted issuer has a key of the token's `kid`"));
    };
    let signature = Signature::from_bytes(&parts.signature);
    if key.key.verify_strict(parts.signed, &signature).is_err() {
        let detail = format!("the signature does not verify with key `{}` of `{}`", key.kid, key.issuer);
        return Err(Refusal::new(Code::SignatureInvalid, detail));
    }
    let claims = Claims::parse(&parts.payload).map_err(|error| match error {
        ClaimsError::Unsupported(detail) => Refusal::new(Code::TermUnsupported, detail),
        ClaimsError::Shape(detail) => Refusal::new(Code::LicenseMalformed, detail),
    })?;
    if *claims.iss != *key.issuer {
        let detail = format!("the license names issuer `{}`; the key is of `{}`", claims.iss, key.issuer);
        return Err(Refusal::new(Code::IssuerUntrusted, detail));
    }
    if !key.state.verifies() {
        return Err(Refusal::new(
            Code::KeyRetired,
            format!("key `{}` of `{}` is retired", key.kid, key.issuer),
        ));
    }
    Ok(VerifiedLicense { claims, key: key.clone(), digest: digest(token) })
}
