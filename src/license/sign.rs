//! Signs licenses. Refuses claims that a gate would refuse.

use ed25519_dalek::{Signer, SigningKey};

use super::claims::{Claims, ClaimsError};
use super::jws::{self, Header, MAX_TOKEN_BYTES, TYPE};

/// Why a license was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The claims would be refused.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// They could not be written.
    #[error("the license cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The token would be too long.
    #[error(
        "the license would have {0} bytes; at most {MAX_TOKEN_BYTES} are accepted: name fewer datasets or users, or larger groups of them"
    )]
    TooLarge(usize),
}

/// Signs `claims` with the key named `kid`.
///
/// # Errors
/// When a gate would refuse the result.
pub fn sign(claims: &Claims, kid: &str, key: &SigningKey) -> Result<String, SignError> {
    let payload = serde_json::to_vec(claims)?;
    // What is signed is what a gate will read: the same parser has the last word.
    Claims::parse(&payload)?;
    let header = Header { alg: "EdDSA".to_owned(), typ: TYPE.to_owned(), kid: kid.to_owned() };
    let header = serde_json::to_vec(&header)?;
    let token = jws::compose(&header, &payload, |signed| key.sign(signed).to_bytes());
    if token.len() > MAX_TOKEN_BYTES {
        return Err(SignError::TooLarge(token.len()));
    }
    Ok(token)
}
