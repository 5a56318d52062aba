//! Key sets on disk: JSON Web Keys (RFC 7517) of kind OKP, curve Ed25519 (RFC 8037).
//!
//! Refuses a private member (`d`) in a public key set, and what this gate does not verify with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::document::{Document, Problems};

/// The keys of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// The `iss` of the licenses that these keys sign.
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// The keys.
    #[schemars(length(min = 1))]
    pub keys: Vec<PublicJwk>,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicJwk {
    /// Always `OKP`.
    pub kty: KeyType,
    /// Always `Ed25519`.
    pub crv: Curve,
    /// The key: 32 bytes, base64url without padding.
    #[schemars(length(equal = 43))]
    pub x: String,
    /// The key's name in license headers.
    #[schemars(length(min = 1, max = 256))]
    pub kid: String,
    /// `EdDSA`, where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<Algorithm>,
    /// `sig`, where given.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Where the key stands in its life.
    #[serde(default)]
    pub state: KeyState,
}

/// Octet key pair (RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// The only kind accepted.
    #[serde(rename = "OKP")]
    Okp,
}

/// The curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Curve {
    /// The only curve accepted.
    Ed25519,
}

/// The algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// The only algorithm accepted.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// What the key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Usage {
    /// Signatures.
    #[serde(rename = "sig")]
    Signature,
}

/// Where a key stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published ahead of its use; accepted, so that gates that learn late do not refuse.
    Next,
    /// Signs and verifies.
    #[default]
    Active,
    /// Signs no more; what it signed is still accepted.
    Retiring,
    /// What it signed is no longer accepted.
    Retired,
}

impl KeyState {
    /// Whether licenses signed with such a key are accepted.
    pub fn verifies(self) -> bool {
        self != Self::Retired
    }
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in base64url.
    #[error("the key is not 32 bytes in base64url without padding")]
    Encoding,
    /// Not a point that a signature may be verified with.
    #[error("the key is not a valid Ed25519 public key, or it is one of small order")]
    Point,
    /// The private and the public half do not belong together.
    #[error("`x` is not the public half of `d`")]
    Halves,
}

impl KeySet {
    /// Reads a key set.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        Document::parse(origin, text)?.decode()
    }
}

impl PublicJwk {
    /// The public half of a signing key, named by its thumbprint (RFC 7638).
    pub fn of(key: &VerifyingKey) -> Self {
        let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
        Self {
            kid: thumbprint(&x),
            x,
            kty: KeyType::Okp,
            crv: Curve::Ed25519,
            alg: Some(Algorithm::EdDsa),
            usage: Some(Usage::Signature),
            state: KeyState::Active,
        }
    }

    /// The key itself.
    ///
    /// # Errors
    /// When it is not a point that a signature may be verified with.
    pub fn decode(&self) -> Result<VerifyingKey, KeyError> {
        let bytes = decode_32(&self.x)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point)?;
        // A point has one canonical form: another encoding of it is another name for the same key.
        let canonical = key.to_bytes() == bytes && !key.is_weak();
        if canonical { Ok(key) } else { Err(KeyError::Point) }
    }

    /// The form for the world: without the state, which is this gate's own.
    pub fn published(&self) -> serde_json::Value {
        serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": self.x,
        })
    }
}

/// A signing key on disk. Its `Debug` form shows no secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateJwk {
    /// Always `OKP`.
    pub kty: KeyType,
    /// Always `Ed25519`.
    pub crv: Curve,
    /// The public half.
    pub x: String,
    /// The secret half: 32 bytes, base64url without padding.
    pub d: String,
    /// The key's name in license headers.
    #[schemars(length(min = 1, max = 256))]
    pub kid: String,
    /// The issuer that signs with it.
    #[schemars(length(min = 1))]
    pub issuer: String,
}

impl std::fmt::Debug for PrivateJwk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateJwk")
            .field("kid", &self.kid)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl PrivateJwk {
    /// The form on disk of a signing key.
    pub fn of(key: &SigningKey, issuer: &str) -> Self {
        let public = PublicJwk::of(&key.verifying_key());
        Self {
            kty: public.kty,
            crv: public.crv,
            x: public.x,
            d: URL_SAFE_NO_PAD.encode(key.as_bytes()),
            kid: public.kid,
            issuer: issuer.to_owned(),
        }
    }

    /// The key itself.
    ///
    /// # Errors
    /// When it is not 32 bytes, or `x` belongs to another.
    pub fn decode(&self) -> Result<SigningKey, KeyError> {
        let key = SigningKey::from_bytes(&decode_32(&self.d)?);
        let belongs = decode_32(&self.x)? == key.verifying_key().to_bytes();
        if belongs { Ok(key) } else { Err(KeyError::Halves) }
    }
}

fn decode_32(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Encoding)?;
    bytes.try_into().map_err(|_| KeyError::Encoding)
}

/// The thumbprint of an Ed25519 key (RFC 7638, section 3; RFC 8037, appendix A.3).
fn thumbprint(x: &str) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprint_of_the_rfc() {
        // RFC 8037, appendix A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(thumbprint(x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn refuses_points_that_prove_nothing() {
        let mut identity = [0_u8; 32];
        identity[0] = 1;
        let mut order_eight = [0_u8; 32];
        hex_into("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", &mut order_eight);
        let mut non_canonical = [0xff_u8; 32];
        non_canonical[0] = 0xee; // y = p + 1, another encoding of the identity
        non_canonical[31] = 0x7f;
        for bytes in [identity, order_eight, non_canonical, [0; 32]] {
            let jwk = PublicJwk { x: URL_SAFE_NO_PAD.encode(bytes), ..sample() };
            assert_eq!(jwk.decode(), Err(KeyError::Point), "{bytes:02x?}");
        }
        assert!(sample().decode().is_ok());
    }

    fn sample() -> PublicJwk {
        PublicJwk::of(&SigningKey::from_bytes(&[7; 32]).verifying_key())
    }

    fn hex_into(hex: &str, bytes: &mut [u8; 32]) {
        for (position, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[position * 2..position * 2 + 2], 16).unwrap();
        }
    }
}
