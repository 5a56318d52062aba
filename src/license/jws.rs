//! The compact serialization of a JWS (RFC 7515, section 7.1), taken apart.
//!
//! Refuses anything that is not exactly three parts of strict base64url, every algorithm but
//! `EdDSA`, and every header member but `alg`, `typ` and `kid`: a key or a link to one that
//! comes with the token (`jwk`, `jku`, `x5u`) would let the bearer choose who is trusted.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::verify::Refusal;
use crate::domain::Code;
use crate::domain::object::Object;

/// The longest token accepted, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// The media type of a license, as `typ` (RFC 7515, section 4.1.9).
pub const TYPE: &str = "license+jwt";

/// The protected header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Always `EdDSA` (RFC 8037).
    pub alg: String,
    /// Always [`TYPE`].
    pub typ: String,
    /// The name of the key.
    pub kid: String,
}

/// A token taken apart; nothing about it is proven.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// The header.
    pub header: Header,
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// The signature's bytes.
    pub signature: [u8; 64],
    /// What was signed: header and payload as they were received.
    pub signed: &'a [u8],
}

/// The one member that decides which error is the most useful.
#[derive(Deserialize)]
struct AlgorithmOnly {
    alg: Option<String>,
}

/// Takes a token apart.
///
/// # Errors
/// [`Code::LicenseMalformed`] and [`Code::AlgorithmNotAllowed`]. The words never hold the token.
pub fn parse(token: &str) -> Result<Unverified<'_>, Refusal> {
    let malformed = |problem: &str| Refusal::new(Code::LicenseMalformed, problem);
    if token.len() > MAX_TOKEN_BYTES {
        return Err(malformed(&format!(
            "the token has {} bytes; at most {MAX_TOKEN_BYTES} are accepted",
            token.len()
        )));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("the token has no dots"))?;
    let (header, payload) =
        signed.split_once('.').ok_or_else(|| malformed("the token has two parts; three are expected"))?;
    if payload.contains('.') {
        return Err(malformed("the token has more than three parts"));
    }
    let header = parse_header(&decode("header", header)?)?;
    let payload = decode("payload", payload)?;
    let signature = decode("signature", signature)?.try_into().map_err(|bytes: Vec<u8>| {
        malformed(&format!("the signature has {} bytes; an Ed25519 signature has 64", bytes.len()))
    })?;
    Ok(Unverified { header, payload, signature, signed: signed.as_bytes() })
}

fn decode(part: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| {
        Refusal::new(Code::LicenseMalformed, format!("the {part} is not base64url without padding"))
    })
}

fn parse_header(bytes: &[u8]) -> Result<Header, Refusal> {
    let malformed = |problem: String| Refusal::new(Code::LicenseMalformed, problem);
    let Object(algorithm): Object<AlgorithmOnly> = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("the header is not a JSON object with text in it: {error}")))?;
    match algorithm.alg.as_deref() {
        Some("EdDSA") => {}
        Some(other) => {
            let shown: String = other.chars().take(32).collect();
            let problem = format!("`alg` is `{shown}`; only `EdDSA` is accepted");
            return Err(Refusal::new(Code::AlgorithmNotAllowed, problem));
        }
        None => return Err(Refusal::new(Code::AlgorithmNotAllowed, "the header has no `alg`")),
    }
    let Object(header): Object<Header> = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("the header is not accepted: {error}")))?;
    if header.typ != TYPE {
        return Err(malformed(format!("`typ` is not `{TYPE}`")));
    }
    if header.kid.is_empty() || header.kid.len() > 256 {
        return Err(malformed("`kid` is empty or longer than 256 bytes".to_owned()));
    }
    Ok(header)
}

/// Puts a token together.
pub fn compose(header: &[u8], payload: &[u8], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}
